//! Two timestamps that others tell the cluster and read back: the external timestamp, at which a
//! reader outside wants all to read, and how far each store has resolved its locks.

use base::{StoreId, TimeStamp};
use proto::pdpb;
use proto::pdpb::ErrorType;

use crate::rows::RowKey;
use crate::{Change, Placement, PlacementError, RowChanges};

impl Placement {
    /// GetExternalTimestamp: 0 if none was ever set.
    pub fn get_external_timestamp(
        &self,
        request: &pdpb::GetExternalTimestampRequest,
    ) -> Result<pdpb::GetExternalTimestampResponse, PlacementError> {
        self.check_cluster(request.header.as_ref())?;
        let timestamp = self.external_timestamp.0;
        Ok(pdpb::GetExternalTimestampResponse { header: Some(self.header()), timestamp })
    }

    /// SetExternalTimestamp: never backwards, and not above `present`, a timestamp just taken.
    pub fn set_external_timestamp(
        &self,
        request: &pdpb::SetExternalTimestampRequest,
        present: TimeStamp,
    ) -> Result<Change<pdpb::SetExternalTimestampResponse>, PlacementError> {
        self.check_cluster(request.header.as_ref())?;
        let invalid = |text| Err(PlacementError::refused_as(ErrorType::InvalidValue, text));
        let wanted = TimeStamp(request.timestamp);
        if wanted > present {
            return invalid("the external timestamp lies ahead of the present");
        }
        if wanted < self.external_timestamp {
            return invalid("the external timestamp cannot go back");
        }
        let mut rows = RowChanges::default();
        assert!(self.external_timestamp <= wanted && wanted <= present, "checked above");
        rows.put_u64(&RowKey::ExternalTimestamp, wanted.0);
        let reply = pdpb::SetExternalTimestampResponse { header: Some(self.header()) };
        Ok(Change { rows, reply })
    }

    /// ReportMinResolvedTS: below this timestamp a store has no unresolved locks.
    pub fn report_min_resolved_ts(
        &mut self,
        request: &pdpb::ReportMinResolvedTsRequest,
    ) -> Result<pdpb::ReportMinResolvedTsResponse, PlacementError> {
        self.check_bootstrapped(request.header.as_ref())?;
        self.live_store(request.store_id)?;
        let store = self.cluster.stores.get_mut(&StoreId(request.store_id)).expect("found above");
        assert_eq!(store.meta.id, request.store_id, "stores are kept under their ids");
        store.min_resolved_ts = store.min_resolved_ts.max(request.min_resolved_ts);
        Ok(pdpb::ReportMinResolvedTsResponse { header: Some(self.header()) })
    }
}
