//! What a provider has cost in the present day or month, against what it may.
//!
//! Counted on accepted calls, because those are what vendors bill. A budget is
//! over when its cost has reached it; a new period begins at midnight UTC.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Budget, Period};
use crate::clock::Utc;

const DAY_MS: u64 = 86_400_000;

/// A provider's spending.
#[derive(Clone, Debug, Default)]
pub struct Spending {
    budget: Option<Budget>,
    spent: Spent,
    unwritten: bool,
}

/// What was spent in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Spent {
    /// Days, or months, since a fixed day in the past.
    period: u64,
    amount: f64,
}

impl Spending {
    /// Nothing spent yet.
    pub fn new(budget: Option<Budget>) -> Self {
        Self { budget, ..Self::default() }
    }

    /// Another budget; what was spent in a period of the same kind stays spent.
    pub fn set_budget(&mut self, budget: Option<Budget>) {
        self.budget = budget;
    }

    /// An accepted call.
    pub fn spend(&mut self, cost: f64, now: Utc) {
        let Some(budget) = self.budget.filter(|_| cost > 0.0) else { return };
        let period = number(budget.period, now);
        if self.spent.period != period {
            self.spent = Spent { period, amount: 0.0 };
        }
        self.spent.amount += cost;
        self.unwritten = true;
    }

    /// Whether the present period's budget is over.
    pub fn over(&self, now: Utc) -> Over {
        match self.budget {
            Some(budget) if self.spent_now(budget, now) >= budget.amount => {
                if budget.hard {
                    Over::Hard
                } else {
                    Over::Soft
                }
            }
            Some(_) | None => Over::No,
        }
    }

    fn spent_now(&self, budget: Budget, now: Utc) -> f64 {
        let present = self.spent.period == number(budget.period, now);
        if present { self.spent.amount } else { 0.0 }
    }

    /// What must be written so that a restart knows it, if anything changed.
    pub fn take_unwritten(&mut self) -> Option<Spent> {
        std::mem::take(&mut self.unwritten).then_some(self.spent)
    }

    /// What the process before had spent. Of another period it is nothing.
    pub fn restore(&mut self, spent: Spent) {
        self.spent = spent;
    }
}

/// Whether a budget is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// It is not, or there is none.
    No,
    /// It is, and calls go on.
    Soft,
    /// It is, and no call is made.
    Hard,
}

/// Periods of different kinds have numbers far apart, so that a changed budget
/// starts anew.
fn number(period: Period, now: Utc) -> u64 {
    match period {
        Period::Day => now.ms() / DAY_MS,
        Period::Month => {
            let ms = i64::try_from(now.ms()).unwrap_or(i64::MAX);
            let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
            let date = TimeZone::UTC.to_datetime(time).date();
            // Years are below 10,000; days since 1970 stay below a million until 4707.
            1_000_000
                + u64::from(date.year().unsigned_abs()) * 12
                + u64::from(date.month().unsigned_abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    /// 2026-01-31T12:00:00Z
    const NOON: u64 = 1_769_860_800_000;

    fn spending(period: Period, hard: bool) -> Spending {
        Spending::new(Some(Budget { amount: 1.0, period, hard }))
    }

    #[test]
    fn a_budget_is_over_when_its_cost_has_reached_it_until_the_period_ends() {
        let mut day = spending(Period::Day, true);
        let mut month = spending(Period::Month, false);
        let now = Utc::from_ms(NOON);
        for spending in [&mut day, &mut month] {
            spending.spend(0.75, now);
            assert_eq!(spending.over(now), Over::No);
            spending.spend(0.25, now);
        }
        assert_eq!((day.over(now), month.over(now)), (Over::Hard, Over::Soft));
        let evening = Utc::from_ms(NOON + DAY / 2 - 1);
        assert_eq!((day.over(evening), month.over(evening)), (Over::Hard, Over::Soft));
        let february = Utc::from_ms(NOON + DAY / 2);
        assert_eq!((day.over(february), month.over(february)), (Over::No, Over::No));
        day.spend(0.5, february);
        assert_eq!(day.over(february), Over::No);
    }

    #[test]
    fn what_was_spent_is_kept_over_a_restart() {
        let now = Utc::from_ms(NOON);
        let mut before = spending(Period::Day, true);
        assert_eq!(before.take_unwritten(), None);
        before.spend(1.0, now);
        let spent = before.take_unwritten().unwrap();
        assert_eq!(before.take_unwritten(), None, "written once");
        let mut after = spending(Period::Day, true);
        after.restore(spent);
        assert_eq!(after.over(now), Over::Hard);
    }

    #[test]
    fn without_a_budget_nothing_is_ever_over() {
        let mut free = Spending::default();
        free.spend(1e9, Utc::from_ms(NOON));
        assert_eq!(free.over(Utc::from_ms(NOON)), Over::No);
    }
}
