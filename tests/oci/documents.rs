//! The documents of an image: they are what the specification says, and say what the recipe does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::{World, modes};
use crate::out::{export, json, run, work, world_with};

#[test]
fn documents_are_what_the_specification_says() {
    let world = World::new(modes()[0]);
    world_with(&world);
    let layout = world.path("work").join("lay");
    let blob = |digest: &Value| -> PathBuf {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        layout.join("blobs/sha256").join(hex)
    };
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let valid = |schema: &str, file: &Path| {
        run("/usr/bin/python3", &["tests/oci/schema.py", schema, file.to_str().unwrap()]);
    };
    let index = layout.join("index.json");
    let forms = [
        ("oci-layout:lay:one", &["--layers", "one"][..]),
        ("oci-layout:lay:g", &["--compress", "gzip"]),
        ("oci-layout:lay:v", &[]),
    ];
    for (target, flags) in forms {
        export(&world, &[&[target], flags].concat());
        let last = read(&index)["manifests"].as_array().unwrap().last().unwrap()["digest"].clone();
        let manifest = blob(&last);
        let config = blob(&read(&manifest)["config"]["digest"]);
        valid("image-manifest-schema.json", &manifest);
        valid("config-schema.json", &config);
        // Docker wants an entry of the history for each layer, and shows the steps of all of them.
        let config = read(&config);
        let history = config["history"].as_array().unwrap();
        let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
        assert_eq!(layers, config["rootfs"]["diff_ids"].as_array().unwrap().len());
        assert_eq!(layers, read(&manifest)["layers"].as_array().unwrap().len());
        let by = |entry: &Value| entry["created_by"].as_str().unwrap_or_default().to_string();
        let seen = json("skopeo", &["inspect", "--config", &format!("oci:{}", &work(&world, &target[11..]))]);
        let steps: Vec<String> = seen["history"].as_array().unwrap().iter().map(by).collect();
        for step in ["step compile: ", "step remove: "] {
            assert_eq!(steps.iter().filter(|by| by.starts_with(step)).count(), 1, "{target}: {steps:?}");
        }
    }
    valid("image-layout-schema.json", &layout.join("oci-layout"));
    valid("image-index-schema.json", &index);
    let last = read(&index)["manifests"].as_array().unwrap().last().unwrap()["digest"].clone();
    let manifest = blob(&last);
    let config = blob(&read(&manifest)["config"]["digest"]);
    // A schema that takes anything would prove nothing.
    let wrong = world.write("wrong.json", r#"{"schemaVersion": 2, "config": 7}"#);
    let output = Command::new("/usr/bin/python3")
        .args(["tests/oci/schema.py", "image-manifest-schema.json", wrong.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(!output.status.success());

    let (manifest, config) = (read(&manifest), read(&config));
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 4);
    let made: Vec<_> =
        layers.iter().map(|layer| layer["annotations"]["dev.isolith.made-by"].clone()).collect();
    assert_eq!(made, ["base", "source src", "step compile", "step remove"]);
    let history = config["history"].as_array().unwrap();
    let by = history[2]["created_by"].as_str().unwrap();
    assert!(by.starts_with("step compile: /bin/sh -euc mkdir"), "{by}");
    let run = &config["config"];
    assert_eq!(run["Entrypoint"], serde_json::json!(["/bin/sh", "-c"]));
    assert_eq!(run["Env"], serde_json::json!(["GREETING=hi there", "PATH=/bin"]));
    assert_eq!(run["ExposedPorts"], serde_json::json!({"8080/tcp": {}}));
    assert_eq!(run["Volumes"], serde_json::json!({"/data": {}}));
    assert_eq!((&run["WorkingDir"], &run["StopSignal"]), (&"/out".into(), &"SIGINT".into()));
    assert_eq!(
        run["Healthcheck"],
        serde_json::json!({"Test": ["CMD", "true"], "Interval": 30_000_000_000u64})
    );
    assert_eq!((&config["author"], &config["os"]), (&"nobody".into(), &"linux".into()));
}

/// Every key, in the words of the image specification and of Docker.
#[test]
fn the_image_table_becomes_the_configuration() {
    let world = World::new(modes()[0]);
    let exported = |table: &str| -> Value {
        world.recipe(&format!("[image]\n{table}"));
        let _ = fs::remove_dir_all(world.path("work/lay"));
        export(&world, &["oci-layout:lay:v"]);
        json("skopeo", &["inspect", "--config", &format!("oci:{}:v", work(&world, "lay"))])
    };
    let mut config = exported(
        r#"
entrypoint = ["/bin/sh", "-c"]
cmd = ["true", "two"]
env = { B = "2", A = "1 = one" }
user = "1000:100"
workdir = "/usr"
labels = { "org.example.a" = "b" }
ports = [8080, "53/udp"]
volumes = ["/data", "/other"]
stop-signal = "SIGRTMIN+3"
healthcheck = { test = "true || false", interval = "1m", timeout = "2s", start-period = "3s", retries = 4 }
author = "Kim <kim@example.org>"
"#,
    );
    assert_eq!(config["author"], "Kim <kim@example.org>");
    assert_eq!(config["created"], "1970-01-01T00:00:01Z");
    let labels = config["config"]["Labels"].take();
    config["config"].as_object_mut().unwrap().remove("Labels");
    assert_eq!((&labels["org.example.a"], &labels["dev.isolith.recipe"]), (&"b".into(), &"test".into()));
    assert_eq!(
        config["config"],
        serde_json::json!({
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["true", "two"], "Env": ["A=1 = one", "B=2"],
            "User": "1000:100", "WorkingDir": "/usr", "StopSignal": "SIGRTMIN+3",
            "ExposedPorts": { "53/udp": {}, "8080/tcp": {} }, "Volumes": { "/data": {}, "/other": {} },
        })
    );
    // skopeo shows what OCI has; the check is Docker's, so it is read from the file.
    let check = |table: &str| -> Value {
        exported(table);
        let blobs = fs::read_dir(world.path("work/lay/blobs/sha256")).unwrap();
        let texts = blobs.filter_map(|blob| fs::read_to_string(blob.unwrap().path()).ok());
        let configs: Vec<Value> = texts.filter_map(|text| serde_json::from_str(&text).ok()).collect();
        configs.iter().find(|config| config["rootfs"].is_object()).unwrap()["config"]["Healthcheck"].clone()
    };
    let all = r#"{ test = "a || b", interval = "1m", timeout = "2s", start-period = "3s", retries = 4 }"#;
    assert_eq!(
        check(&format!("healthcheck = {all}\n")),
        serde_json::json!({
            "Test": ["CMD-SHELL", "a || b"], "Interval": 60_000_000_000u64, "Timeout": 2_000_000_000u64,
            "StartPeriod": 3_000_000_000u64, "Retries": 4,
        })
    );
    let never = check("healthcheck = { test = [] }\n");
    assert_eq!(never, serde_json::json!({ "Test": ["NONE"] }));
}
