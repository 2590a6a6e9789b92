//! Plans and their application together: what a container has at the end, in whatever order events
//! arrive, and whatever fails in between.

mod admission;
mod database;
mod early_names;
mod failures;
mod fake_container;
mod links;
mod naming;
mod nodeless;
mod order;
mod paths;
mod properties;
mod scenario;
mod selection;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{Effects, Failure, apply, check};
use crate::model::cgroup::grants::GrantSet;
use crate::model::device::event::DeviceEvent;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded::{before_udev, disk_with_partitions, hub_with_two_adapters, root_hubs};
use crate::model::device::{Access, DevKind, DevNum, Device, SysPath, UdevState};
use crate::model::oci::ProcessUser;
use crate::model::plan::admission::{Admissions, Decision};
use crate::model::plan::announcements::{AnnouncedDevices, Announcement};
use crate::model::plan::attachment::{Attachments, NodeCreator, NodeSpec, PathState};
use crate::model::plan::{Current, NotAttached, Plan, Planner, Reason, Step, path_of_entry, plan, still_due};
use crate::model::policy::Denial;
use crate::model::request::entry::{Origin, RequestEntry};
use crate::model::request::parse_requests;
use crate::model::request::symlink::parse_symlinks;
use crate::model::udev_database::{DatabaseId, Entries, EntryFacts, EntryKind};
use crate::model::uevent::{UeventAction, UeventForm};

use fake_container::*;
use scenario::*;
