//! What all prompts under one plan begin with, such as the template's system message. It is read once, then copied.

use super::Request;

/// The shared start of each plan's prompts, if they have one.
pub(super) struct SharedStarts {
    starts: Vec<Option<SharedStart>>,
    /// The longest start in each slot.
    lengths: Vec<usize>,
}

/// The start that one plan's prompts share.
pub(super) struct SharedStart {
    /// Which of the slots for starts holds it.
    pub(super) slot: usize,
    /// How many tokens it has.
    pub(super) len: usize,
    /// What reading it applied the plan to at each touched site, once the cache holds it.
    pub(super) applied: Option<Vec<u64>>,
}

impl SharedStarts {
    /// Fewest tokens of a start: below this a copy saves nothing.
    const SHORTEST: usize = 8;
    /// The most starts that are held at once; for further plans every prompt is read whole.
    const MOST: usize = 128;

    /// No start is shared.
    pub(super) fn none(plans: usize) -> Self {
        Self { starts: (0..plans).map(|_| None).collect(), lengths: Vec::new() }
    }

    /// Finds the common start of each plan's prompts. At least one token of every prompt stays outside it. Requests are
    /// admitted in order, so a slot can serve another plan once the last row of its own plan has taken its copy.
    pub(super) fn find(requests: &[Request], plans: usize) -> Self {
        let mut shared = Self::none(plans);
        let mut last_of_slot: Vec<usize> = Vec::new();
        let common = common(requests, plans);
        let mut order: Vec<usize> = (0..plans).filter(|&plan| common[plan].is_some()).collect();
        order.sort_by_key(|&plan| common[plan].as_ref().map(|common| common.first));
        for plan in order {
            let Some(Common { ids, first, last, .. }) = common[plan] else { continue };
            if first == last || ids.len() < Self::SHORTEST {
                continue;
            }
            let free = last_of_slot.iter().position(|&last| last < first);
            let slot = free.unwrap_or(last_of_slot.len());
            if slot >= Self::MOST {
                continue;
            }
            if free.is_none() {
                last_of_slot.push(last);
                shared.lengths.push(0);
            }
            last_of_slot[slot] = last;
            shared.lengths[slot] = shared.lengths[slot].max(ids.len());
            shared.starts[plan] = Some(SharedStart { slot, len: ids.len(), applied: None });
        }
        shared
    }

    /// The start of a plan's prompts.
    pub(super) fn of(&mut self, plan: usize) -> Option<&mut SharedStart> {
        self.starts[plan].as_mut()
    }

    /// The most tokens that each slot for starts will hold.
    pub(super) fn lengths(&self) -> Vec<usize> {
        self.lengths.clone()
    }
}

/// What one plan's prompts begin with, and the plan's first and last rows.
struct Common<'a> {
    ids: &'a [u32],
    first: usize,
    last: usize,
}

fn common(requests: &[Request], plans: usize) -> Vec<Option<Common<'_>>> {
    let mut common: Vec<Option<Common<'_>>> = (0..plans).map(|_| None).collect();
    for (row, request) in requests.iter().enumerate() {
        let ids = &request.ids[..request.ids.len() - 1];
        common[request.plan] = Some(match &common[request.plan] {
            None => Common { ids, first: row, last: row },
            Some(before) => {
                let same = before.ids.iter().zip(ids).take_while(|(a, b)| a == b).count();
                Common { ids: &before.ids[..same], first: before.first, last: row }
            }
        });
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(plan: usize, ids: Vec<u32>) -> Request {
        let (sampling, stop) = Default::default();
        Request { ids: ids.into(), plan, sampling, noise: 0, max_new_tokens: 1, stop }
    }

    #[test]
    fn a_slot_serves_one_plan_after_the_other() {
        let prompt = |own: u32| (0..20).chain([own]).collect::<Vec<u32>>();
        let in_turn = [0, 0, 1, 1, 2, 2].map(|plan| request(plan, prompt(plan as u32)));
        let starts = SharedStarts::find(&in_turn, 3);
        assert_eq!(starts.lengths(), [20]);
        assert!(starts.starts.iter().all(|start| start.as_ref().is_some_and(|s| s.slot == 0 && s.len == 20)));
        let mixed = [0, 1, 2, 0, 1, 2].map(|plan| request(plan, prompt(plan as u32 + 30)[plan..].to_vec()));
        let starts = SharedStarts::find(&mixed, 4);
        assert_eq!(starts.lengths(), [20, 19, 18]);
        assert!(starts.starts[3].is_none(), "no row asks for it");
    }

    #[test]
    fn a_prompt_keeps_a_token_of_its_own() {
        let same = [request(0, vec![7; 12]), request(0, vec![7; 12])];
        assert_eq!(SharedStarts::find(&same, 1).lengths(), [11]);
        let short = [request(0, vec![7; 8]), request(0, vec![7; 30])];
        assert_eq!(SharedStarts::find(&short, 1).lengths(), [0; 0]);
        assert_eq!(SharedStarts::find(&same[..1], 1).lengths(), [0; 0], "one row shares with nobody");
    }
}
