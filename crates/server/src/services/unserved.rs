//! Calls that nobody here serves: UNIMPLEMENTED, with the name of the call, so that whoever reads a
//! client's log knows what it missed.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::uri::Uri;
use axum::middleware::Next;
use axum::response::Response;
use tonic::{Code, Status};

/// A layer around all gRPC services: puts the call's name into the status of calls that are not
/// served.
pub(crate) async fn name_the_call(request: Request, next: Next) -> Response {
    // A reference count, not a copy.
    let call: Uri = request.uri().clone();
    let mut response = next.run(request).await;
    let code = response.headers().get(Status::GRPC_STATUS);
    if code.is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::Unimplemented) {
        let name = call.path().trim_start_matches('/');
        if let Ok(text) = HeaderValue::from_str(&format!("{name} is not served")) {
            response.headers_mut().insert(Status::GRPC_MESSAGE, text);
        }
    }
    response
}
