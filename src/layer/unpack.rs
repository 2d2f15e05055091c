//! Unpack: a tar archive becomes a layer's file tree, in one pass over its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use tar::EntryType;

use super::canonical::{self, Node};
use super::pack::{OPAQUE, WHITEOUT};
use super::place::{Place, Placer};
use super::tar_reader::{Member, TarReader};
use super::{Entry, IdShift, Kind, Manifest, Xattrs, disk, xattrs};
use crate::error::{Error, Result};
use crate::path::GuestPath;
