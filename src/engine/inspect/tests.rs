use std::io::Write;

use super::*;

fn tar_of(members: &[(&str, u64, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, time, text) in members {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(*time);
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gz(time: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::GzBuilder::new().mtime(time).write(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn shown(content: &Content) -> serde_json::Value {
    serde_json::to_value(content).unwrap()
}

#[test]
fn the_member_of_an_archive_in_a_compressed_archive_is_named() {
    let a = gz(1, &tar_of(&[("same", 1, "x"), ("file", 1, "one\n")]));
    let b = gz(2, &tar_of(&[("same", 1, "x"), ("file", 9, "two\n")]));
    let found = compare(&a, &b, DEPTH).unwrap();
    assert_eq!(found.format, Some("gzip file"));
    let json = shown(&found);
    assert_eq!(json["members"][0]["facts"], serde_json::json!([["time", "1", "2"]]));
    let tar = &json["members"][1]["content"];
    assert_eq!(tar["format"], "tar archive");
    assert_eq!(tar["members"].as_array().unwrap().len(), 1);
    assert_eq!(tar["members"][0]["name"], "file");
    assert_eq!(tar["members"][0]["facts"], serde_json::json!([["time", "1", "9"]]));
    assert_eq!(tar["members"][0]["content"]["text"], "@@ -1 +1 @@\n-one\n+two\n");
    let names: Vec<String> = found.all().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["", "decompressed content", "decompressed content/file"]);
}

#[test]
fn another_order_of_members_is_said() {
    let (a, b) = (tar_of(&[("x", 1, ""), ("y", 1, "")]), tar_of(&[("y", 1, ""), ("x", 1, "")]));
    let found = compare(&a, &b, DEPTH).unwrap();
    assert_eq!(found.notes, ["the same members stand in another order"]);
    assert_eq!(found.members, []);
}

#[test]
fn zip_members_and_their_times() {
    let zip = |year, text: &str| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let time = zip::DateTime::from_date_and_time(year, 1, 1, 0, 0, 0).unwrap();
        let options = zip::write::SimpleFileOptions::default().last_modified_time(time);
        zip.start_file("a.txt", options).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
        zip.finish().unwrap().into_inner()
    };
    let json = shown(&compare(&zip(2001, "x\n"), &zip(2002, "y\n"), DEPTH).unwrap());
    assert_eq!(json["format"], "zip archive");
    assert_eq!(json["members"][0]["facts"][0][0], "time");
    assert_eq!(json["members"][0]["content"]["text"], "@@ -1 +1 @@\n-x\n+y\n");
}

#[test]
fn sections_of_elf_files_and_members_of_ar_archives() {
    let dir = tempfile::tempdir().unwrap();
    let compile = |text: &str| {
        let (source, object) = (dir.path().join("x.c"), dir.path().join("x.o"));
        std::fs::write(&source, format!("const char *text = \"{text}\";\n")).unwrap();
        let output = std::process::Command::new("cc").arg("-c").arg(&source).arg("-o").arg(&object).output();
        assert!(output.expect("no C compiler").status.success());
        std::fs::read(object).unwrap()
    };
    let (a, b) = (compile("one"), compile("two"));
    let found = compare(&a, &b, DEPTH).unwrap();
    assert_eq!(found.format, Some("ELF file"));
    let names: Vec<&str> = found.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].starts_with("section .rodata"), "{names:?}");

    let ar = |time: u32, data: &[u8]| {
        let mut out =
            format!("!<arch>\n{:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", "x.o/", 0, 0, "644", data.len())
                .into_bytes();
        out.extend_from_slice(data);
        out
    };
    let json = shown(&compare(&ar(5, &a), &ar(7, &a), DEPTH).unwrap());
    assert_eq!(json["format"], "ar archive");
    assert_eq!(json["members"][0]["name"], "x.o");
    assert_eq!(json["members"][0]["facts"], serde_json::json!([["time", "5", "7"]]));
}

#[test]
fn bytecode_headers_have_a_time() {
    let pyc = |time: u32| {
        [&[0xcb, 0x0d, 13, 10, 0, 0, 0, 0][..], &time.to_le_bytes(), &[1, 0, 0, 0, 0xe3, 0]].concat()
    };
    let json = shown(&compare(&pyc(1000), &pyc(2000), DEPTH).unwrap());
    assert_eq!(json["format"], "Python bytecode");
    assert_eq!(json["members"][0]["facts"], serde_json::json!([["time", "1000", "2000"]]));
}

#[test]
fn damaged_archives_are_compared_as_bytes() {
    let whole = gz(1, b"hello hello hello");
    let mut cut = whole.clone();
    cut.truncate(whole.len() - 10);
    let found = compare(&whole, &cut, DEPTH).unwrap();
    assert_eq!((found.format, found.bytes.offset), (None, cut.len() as u64));
}
