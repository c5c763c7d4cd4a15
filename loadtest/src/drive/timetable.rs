//! When things are meant to happen, whatever became of those before. Pure.

/// Something that happens so often a second, from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct Timetable {
    began_us: u64,
    per_second: f64,
    done: u64,
}

impl Timetable {
    /// The first is due at `began_us`.
    pub fn new(began_us: u64, per_second: f64) -> Self {
        Self { began_us, per_second, done: 0 }
    }

    /// When the next one is due.
    pub fn next_us(&self) -> u64 {
        self.began_us + (self.done as f64 * 1e6 / self.per_second) as u64
    }

    /// How many are due before `end_us` and not done.
    pub fn missed(&self, end_us: u64) -> u64 {
        let mut rest = *self;
        std::iter::from_fn(|| rest.take(end_us.saturating_sub(1))).count() as u64
    }

    /// The intended time of the next one if that is not later than `now_us`; it counts as done then.
    pub fn take(&mut self, now_us: u64) -> Option<u64> {
        let due_us = self.next_us();
        (due_us <= now_us).then(|| {
            self.done += 1;
            due_us
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_look_finds_every_intended_time() {
        let mut timetable = Timetable::new(1000, 400.0);
        let due: Vec<u64> = std::iter::from_fn(|| timetable.take(11_000)).collect();
        assert_eq!(due, [1000, 3500, 6000, 8500, 11_000]);
        assert_eq!(timetable.next_us(), 13_500);
    }

    #[test]
    fn what_was_not_done_in_time_is_counted() {
        let mut timetable = Timetable::new(1000, 400.0);
        assert_eq!(timetable.take(1000), Some(1000));
        assert_eq!((timetable.missed(3500), timetable.missed(3501), timetable.missed(11_000)), (0, 1, 3));
    }

    #[test]
    fn a_million_steps_do_not_drift() {
        let mut timetable = Timetable::new(0, 3.0);
        (0..1_000_000).for_each(|_| assert!(timetable.take(u64::MAX).is_some()));
        assert_eq!(timetable.next_us(), 333_333_333_333);
    }
}
