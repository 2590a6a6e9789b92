//! The classes and the policy of all files together.

use super::Config;
use super::error::ConfigError;
use super::sections::{add_policy, classes_of, may_deny_trusted};
use super::user_file::UserFile;
use crate::model::policy::{Policy, UnknownRules};
use crate::model::request::class::Classes;

impl Config {
    /// The classes. They are parsed on demand, so that a program without use for them neither fails
    /// because of them nor contains their parser.
    ///
    /// # Errors
    /// When a class is defined wrongly, or a file of `config.d` is broken.
    pub fn classes(&self) -> Result<Classes, ConfigError> {
        self.check_broken()?;
        let mut classes = Classes::none(&self.path);
        for (path, text) in &self.files {
            classes.extend(classes_of(path, text)?);
        }
        if let Some(file) = &self.user_file {
            classes.add_of_user(file.rules().map_err(|(_, error)| error)?.classes);
        }
        Ok(classes)
    }

    /// The classes whose definition is certain. A class that a broken file may define cannot be
    /// used.
    pub fn usable_classes(&self) -> Classes {
        let mut classes = Classes::none(&self.path);
        for broken in &self.broken {
            classes.set_aside(broken.text.clone(), broken.fault.clone());
        }
        for (path, text) in &self.files {
            match classes_of(path, text) {
                Ok(more) => classes.extend(more),
                Err(error) => classes.set_aside(Some(text.clone()), error.to_string()),
            }
        }
        match self.user_file.as_ref().map(UserFile::rules) {
            Some(Ok(rules)) => classes.add_of_user(rules.classes),
            Some(Err((_, error))) => classes.set_aside_of_user(error.to_string()),
            None => {}
        }
        classes
    }

    /// The policy, parsed on demand.
    ///
    /// # Errors
    /// When a key or a rule is wrong, or a file of `config.d` is broken.
    pub fn policy(&self) -> Result<Policy, ConfigError> {
        self.check_broken()?;
        let mut policy = self.empty_policy();
        for (path, text) in &self.files {
            add_policy(&mut policy, path, text)?;
        }
        if let Some(file) = &self.user_file {
            policy.deny_also(file.rules().map_err(|(_, error)| error)?.deny);
        }
        Ok(policy)
    }

    /// The policy of the usable files, restricted to what broken files certainly do not deny: it
    /// denies all untrusted requests, and trusted ones too if a broken file may have a rule with
    /// `applies-to = "all"`.
    pub fn usable_policy(&self) -> Policy {
        let mut policy = self.empty_policy();
        let unknown = |text: Option<&str>, fault: String| UnknownRules {
            fault,
            may_concern_trusted: text.is_none_or(may_deny_trusted),
        };
        for broken in &self.broken {
            let rules = unknown(broken.text.as_deref(), broken.fault.clone());
            policy.unknown.push(rules);
        }
        for (path, text) in &self.files {
            if let Err(error) = add_policy(&mut policy, path, text) {
                policy.unknown.push(unknown(Some(text), error.to_string()));
            }
        }
        match self.user_file.as_ref().map(UserFile::rules) {
            Some(Ok(rules)) => policy.deny_also(rules.deny),
            Some(Err((text, error))) => policy.unknown.push(unknown(text, error.to_string())),
            None => {}
        }
        policy
    }

    fn check_broken(&self) -> Result<(), ConfigError> {
        match self.broken.first() {
            Some(broken) => Err(ConfigError::Broken(broken.fault.clone())),
            None => Ok(()),
        }
    }

    fn empty_policy(&self) -> Policy {
        Policy {
            written_in: self.path.clone(),
            tool_options: self.tool_options.clone(),
            ..Policy::default()
        }
    }
}
