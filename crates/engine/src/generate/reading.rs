//! What is captured of a row during generation, from the very passes that write it.

use std::collections::VecDeque;

use headtemper_hook::ModelSpec;

use crate::{
    CaptureRow, Keep, Pool,
    keep::{Mean, Seen},
};

/// What a row's tokens have shown so far. The result equals that of one pass over prompt and answer: averages over the same
/// tokens in the same order.
pub(super) struct Reading {
    hidden: Window,
    heads: Window,
    /// The newest token: the prompt's last as long as there is no answer.
    newest: Seen,
}

impl Reading {
    pub(super) fn new(keep: &Keep) -> Self {
        Self { hidden: Window::of(keep.pool), heads: Window::of(Pool::LastN(keep.last_n)), newest: Seen::default() }
    }

    /// Takes in one more token that was read; `response` if it is the answer's.
    pub(super) fn see(&mut self, seen: Seen, response: bool) {
        if response {
            self.hidden.push(&seen.hidden);
            self.heads.push(&seen.heads);
        }
        self.newest = seen;
    }

    /// What is kept of the row. For an empty answer, that is the last token of its prompt, where the model chose to stop.
    pub(super) fn finish(self, keep: &Keep, spec: &ModelSpec) -> CaptureRow {
        let newest = self.newest;
        let hidden = self.hidden.mean().unwrap_or(newest.hidden);
        let heads = self.heads.mean().unwrap_or(newest.heads);
        keep.row(spec, Seen { hidden, heads, ..newest })
    }
}

/// The tokens that a mean is taken over, updated token by token.
enum Window {
    /// Only the newest, which is kept elsewhere.
    Newest,
    /// The last `most` tokens.
    Last { most: usize, values: VecDeque<Vec<f32>> },
    /// All.
    All(Mean),
}

impl Window {
    fn of(pool: Pool) -> Self {
        match pool {
            Pool::Last => Self::Newest,
            Pool::LastN(most) => Self::Last { most, values: VecDeque::new() },
            Pool::Response => Self::All(Mean::default()),
        }
    }

    fn push(&mut self, newest: &[f32]) {
        match self {
            Self::Newest => {}
            Self::Last { most, values } => {
                // The newest reuses the buffer of the oldest.
                let mut room = if values.len() == *most { values.pop_front() } else { None }.unwrap_or_default();
                room.clear();
                room.extend_from_slice(newest);
                values.push_back(room);
            }
            Self::All(mean) => mean.add(newest),
        }
    }

    /// The mean over the window; `None` if no token came, or if the window is only the newest token.
    fn mean(self) -> Option<Vec<f32>> {
        let mean = match self {
            Self::Newest => return None,
            Self::All(mean) => mean,
            Self::Last { values, .. } => Mean::over(values.iter().map(|values| &values[..])),
        };
        if mean.is_empty() { None } else { Some(mean.value()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_average_the_tokens_that_they_cover() {
        let mean = |pool: Pool, values: &[f32]| {
            let mut window = Window::of(pool);
            for x in values {
                window.push(&[*x, 2.0 * x]);
            }
            window.mean()
        };
        assert_eq!(mean(Pool::LastN(2), &[1.0, 4.0, 8.0]), Some(vec![6.0, 12.0]));
        assert_eq!(mean(Pool::LastN(5), &[1.0, 4.0]), Some(vec![2.5, 5.0]));
        assert_eq!(mean(Pool::Response, &[1.0, 4.0, 10.0]), Some(vec![5.0, 10.0]));
        assert_eq!(mean(Pool::Last, &[1.0]), None);
        assert_eq!((mean(Pool::LastN(2), &[]), mean(Pool::Response, &[])), (None, None));
    }
}
