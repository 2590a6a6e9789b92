//! What the configuration of a user adds to the administrator's policy.

use super::{Policy, Rule};

impl Policy {
    /// Adds the rules of a user, which only deny. Every device that the administrator's policy
    /// denies stays denied, and the protected devices stay protected: rules and default that allow
    /// are the administrator's alone.
    pub fn deny_also(&mut self, rules: Vec<Rule>) {
        self.deny.extend(rules);
    }
}
