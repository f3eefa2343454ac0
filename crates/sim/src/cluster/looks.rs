//! The two looks of a reader, and what they promise: between them nobody took the data away.
//!
//! Most readers that look once come to no harm: what they find is at least as new as it was when
//! they were let in. Only one whose keys are removed or replaced meanwhile finds too little, and
//! only if there was something. So it is looked at itself.

use base::Instant;
use store::{Job, ReadPermit, RegionError, RegionView};

use super::process::Core;

/// Leave to read.
#[derive(Clone, Debug)]
pub(crate) struct Leave {
    permit: ReadPermit,
    /// How often keys were cleared on this store before.
    cleared: usize,
}

impl Leave {
    pub(crate) fn view(&self) -> &RegionView {
        self.permit.view()
    }
}

impl Core {
    /// The first look is done.
    pub(crate) fn leave(&self, permit: ReadPermit) -> Leave {
        Leave { permit, cleared: self.cleared.len() }
    }

    /// The second look.
    pub(crate) fn look_again(&self, leave: &Leave, now: Instant) -> Result<(), RegionError> {
        self.views.recheck(&leave.permit, now)?;
        let range = &leave.view().region.range;
        let lost = self.cleared[leave.cleared..].iter().find(|cleared| cleared.overlaps(range));
        assert!(
            lost.is_none(),
            "who is let in twice has read whole data: {:?} lost {lost:?}",
            leave.view()
        );
        Ok(())
    }

    /// The job begins: it may clear keys.
    pub(crate) fn clears(&mut self, job: &Job) {
        match job {
            Job::DestroyData(destroy) if !destroy.region.is_system() => {
                self.cleared.push(destroy.range.clone());
            }
            Job::InstallSnapshot(install) if !install.region.id.is_system() => {
                self.cleared.push(install.region.range.clone());
                self.cleared.extend(install.old_range.clone());
            }
            _ => {}
        }
    }
}
