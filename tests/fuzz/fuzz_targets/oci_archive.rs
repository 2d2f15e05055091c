//! Images in archives, of `docker save` and in an image layout, with their configuration: an error or a list of layers.
#![no_main]

use std::io::Write;

use isolith::net::{Progress, Watch};
use isolith::oci::source::{Images, Place};
use libfuzzer_sys::fuzz_target;

struct Deaf;

impl Watch for Deaf {
    fn progress(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        false
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let path = file.path().to_path_buf();
    let images = Images::default();
    let docker = images.image(&Place::DockerArchive { path: path.clone(), tag: None }, None, &Deaf);
    let layout = images.image(&Place::Layout { path: path.clone(), name: None }, None, &Deaf);
    let _ = (docker, layout);
    let named = images.image(&Place::DockerArchive { path, tag: Some("a:1".into()) }, None, &Deaf);
    drop(named);
});
