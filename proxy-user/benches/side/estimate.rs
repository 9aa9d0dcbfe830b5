//! What many rounds say together.

/// The middle of many values, and between which two it lies with a certainty of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Estimate {
    /// Of values in any order; `None` without any. The interval is that of order statistics: nothing has to be
    /// known of how the values spread.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        let at = |rank: f64| values.get(rank.clamp(0.0, count - 1.0) as usize).copied();
        let half = 0.98 * count.sqrt();
        let middle = at((count - 1.0) / 2.0)?;
        let upper = at((count / 2.0).floor())?;
        Some(Self {
            median: f64::midpoint(middle, upper),
            low: at((count / 2.0 - half).floor())?,
            high: at((count / 2.0 + half).ceil())?,
        })
    }

    /// Half of the interval's width, as a share of the median.
    pub(crate) fn uncertainty(&self) -> f64 {
        (self.high - self.low) / 2.0 / self.median
    }
}
