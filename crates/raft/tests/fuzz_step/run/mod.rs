//! Any bytes as a story of one node: who is in the group, what its log holds, and then what
//! happens, message by message, write by write.
//!
//! ```text
//!    bytes ──> input ──> action ──> host ──> RawNode
//!              (decisions)  └ messages  └ keeps the driver's duties, checks what must never be
//! ```
//!
//! The node's owner keeps its duties. The network may say anything. No story may end in a panic:
//! neither in the core nor in what the host asserts, which is only what holds in spite of lies.

mod action;
mod host;
mod input;
mod messages;

use self::action::next_action;
use self::host::Host;
use self::input::Input;

/// Plays the story that `bytes` tell. Shows every action on stderr, if asked to.
pub fn run(bytes: &[u8], show: bool) {
    let mut input = Input::new(bytes);
    let mut host = Host::start(&mut input);
    while !input.is_over() {
        let action = next_action(&mut input, &host);
        if show {
            eprintln!("{:?}\n  {action:?}", host.node().status());
        }
        host.act(action);
    }
}
