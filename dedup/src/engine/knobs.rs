//! Changing knobs while an engine works.

use super::Engine;
use crate::knobs::{KnobError, Knobs, Run};

impl Engine {
    /// The knobs as they are: those that were set, and `pages_to_scan` as the advisor has it.
    pub fn knobs(&self) -> Knobs {
        self.knobs
    }

    /// Changes any number of knobs at once. With the end of the advisor, `pages_to_scan` is what it was
    /// set to before, unless it is changed, too. O(domains), or, where `run` is 2, what it costs to take the pages out of
    /// the trees that were about to be offered again.
    ///
    /// # Errors
    ///
    /// A value out of range, or one that cannot be changed while anything is shared; none of them
    /// is changed.
    pub fn set_knobs(&mut self, mut knobs: Knobs) -> Result<(), KnobError> {
        knobs.check()?;
        if knobs.merge_across_nodes != self.knobs.merge_across_nodes
            && let Some(domain) = self.domains.values().find(|domain| !domain.broker.is_empty())
        {
            let slots = domain.broker.node_count();
            return Err(KnobError::Busy { key: "merge_across_nodes", slots });
        }
        if knobs.max_page_sharing != self.knobs.max_page_sharing {
            self.check_unshared("max_page_sharing")?;
        }
        for domain in self.domains.values_mut() {
            let (across, most) = (knobs.merge_across_nodes, knobs.max_page_sharing);
            let is_set = domain.broker.set_merge_across_nodes(across).is_ok()
                && domain.broker.set_max_page_sharing(most).is_ok();
            if !is_set {
                unreachable!("what could keep a broker from that was just ruled out");
            }
        }
        if knobs.run == Run::Unmerge {
            self.end_visits();
        }
        self.advisor.replace(&self.knobs, &mut knobs);
        self.knobs = knobs;
        Ok(())
    }

    /// Takes all pages out of the trees that were about to be offered again, as no more are: their agents do not count
    /// them as folded, so everything would count as unmerged while they are there.
    fn end_visits(&mut self) {
        for domain in self.domains.values_mut() {
            while domain.broker.end_visits() > 0 {}
        }
    }

    /// Verifies that nothing is shared in any domain, or about to be.
    fn check_unshared(&self, key: &'static str) -> Result<(), KnobError> {
        let nodes = self.domains.values().map(|domain| domain.broker.node_count());
        match nodes.sum() {
            0 => Ok(()),
            slots => Err(KnobError::Busy { key, slots }),
        }
    }
}
