//! What a round changes, outside and inside of the sandboxes: data on its way to the process that builds.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sandbox::{Conditions, ids};
use crate::sys::{privilege, process};

/// The conditions of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Setting {
    /// Of the steps.
    pub inside: Conditions,
    /// Of isolith.
    pub outside: Outside,
}

/// What surrounds isolith, as far as a process can change that for itself. All else is done by whoever starts
/// it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outside {
    /// The umask.
    pub umask: Option<u32>,
    /// Soft limits: number of the resource, value.
    pub limits: Vec<(u32, u64)>,
    /// Execution domain and its flags.
    pub personality: Option<u64>,
    /// Host and domain name.
    pub host_name: Option<(String, String)>,
    /// Id on disk of a sandbox's root.
    pub id_offset: Option<u32>,
    /// Do with one id. Not for root.
    pub one_id: bool,
    /// The user and group to become, by executing the program again when all else is done.
    pub user: Option<(u32, u32)>,
}

impl Outside {
    /// Changes this process for good. It must have one thread.
    pub fn enter(&self) -> Result<()> {
        if let Some(umask) = self.umask {
            privilege::set_umask(umask);
        }
        for (resource, soft) in &self.limits {
            let (_, hard) = privilege::limit(*resource)?;
            privilege::set_limit(*resource, (*soft).min(hard), hard)?;
        }
        if let Some((host, domain)) = &self.host_name {
            process::unshare(libc::CLONE_NEWUTS)?;
            privilege::set_host_name(host, domain)?;
        }
        if let Some(personality) = self.personality {
            privilege::set_personality(personality)?;
        }
        if let Some(offset) = self.id_offset {
            ids::prefer(offset);
        }
        if self.one_id {
            ids::prefer_one();
        }
        Ok(())
    }
}

impl Setting {
    /// From the text of the hidden flag.
    pub fn parse(text: &str) -> Result<Setting> {
        serde_json::from_str(text)
            .map_err(|e| Error::usage("the conditions of a round are damaged").because(e))
    }

    /// The text of the hidden flag.
    pub fn text(&self) -> String {
        // Numbers, strings and lists: nothing that JSON could not hold.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::DirOrder;

    #[test]
    fn the_text_comes_back() {
        let inside =
            Conditions { cpus: Some(1), dir_order: Some(DirOrder::Shuffled(7)), ..Default::default() };
        let outside =
            Outside { host_name: Some(("a".into(), "b".into())), limits: vec![(3, 4)], ..Default::default() };
        for setting in [Setting::default(), Setting { inside, outside }] {
            assert_eq!(Setting::parse(&setting.text()).unwrap(), setting);
        }
        assert_eq!(Setting::parse("{}").unwrap(), Setting::default());
        assert!(Setting::parse("{\"inside\":{\"cpu\":1}}").is_err());
    }
}
