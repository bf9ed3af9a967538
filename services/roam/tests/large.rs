//! Values that do not fit into a record, through the command line: put and got, pushed and pulled, exported and imported.

use std::fs;

use crate::support::{PROFILE, System};
use serde_json::json;

/// Bytes of which no two chunks are alike.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_put_and_got_and_listed_as_what_it_is() {
    let system = System::start().await;
    let text = "a line of text\n".repeat(100_000);
    let file = system.place.path().join("notes.txt");
    fs::write(&file, &text).unwrap();
    system.done("laptop", &format!("put {PROFILE} notes --file {}", file.display()));
    assert!(system.done("phone", &format!("get {PROFILE} notes")).stdout == text, "another value came");
    let record = system.done("phone", &format!("get {PROFILE} notes --json")).objects();
    assert_eq!(record[0]["state"]["value"]["content_type"], "text/plain");
    assert!(record[0]["state"]["value"]["value"] == text, "another value came");
    let listed = system.done("phone", &format!("ls {PROFILE}")).stdout;
    assert!(listed.contains("1.43 MiB  text/plain"), "{listed}");

    // Back to what it was, though only the manifest of that is kept.
    fs::write(&file, text.replace("line", "word")).unwrap();
    system.done("laptop", &format!("put {PROFILE} notes --file {}", file.display()));
    let before = system.done("phone", &format!("get {PROFILE} notes --revision 1")).stdout;
    assert!(before == text, "another version came");
    system.done("laptop", &format!("restore {PROFILE} --at 1"));
    assert!(system.done("phone", &format!("get {PROFILE} notes")).stdout == text, "another version came");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_are_pushed_and_pulled_and_only_when_they_differ() {
    let system = System::start().await;
    let [from, to] = ["from", "to"].map(|name| system.place.path().join(name));
    fs::create_dir(&from).unwrap();
    let value = noise(3 << 20);
    fs::write(from.join("large"), &value).unwrap();
    fs::write(from.join("small"), "small").unwrap();
    fs::File::create(from.join("too large")).unwrap().set_len((100 << 20) + 1).unwrap();

    let push = format!("push {PROFILE} {} --json", from.display());
    let pull = format!("pull {PROFILE} {} --json", to.display());
    let pushed = system.done("laptop", &push).objects();
    assert_eq!((&pushed[0]["pushed"], &pushed[0]["bytes"]), (&json!(2), &json!((3 << 20) + 5)));
    assert_eq!(pushed[0]["left_out"][0]["path"], "too large");
    assert_eq!(system.done("laptop", &push).objects()[0]["unchanged"], 2);
    let pulled = system.done("phone", &pull).objects();
    assert_eq!((&pulled[0]["pulled"], &pulled[0]["bytes"]), (&json!(2), &json!((3 << 20) + 5)));
    assert!(fs::read(to.join("large")).unwrap() == value, "another file came");
    assert_eq!(system.done("phone", &pull).objects()[0]["unchanged"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_exported_whole_and_imported_where_they_differ() {
    let system = System::start().await;
    let (value, file) = (noise(1 << 20), system.place.path().join("value"));
    fs::write(&file, &value).unwrap();
    system.done("laptop", &format!("put {PROFILE} large --file {}", file.display()));
    let archive = system.place.path().join("archive");
    system.done("laptop", &format!("export {PROFILE} --output {}", archive.display()));
    let import = format!("import acme/alice/other {} --json", archive.display());
    assert_eq!(system.done("laptop", &import).objects()[0]["imported"], 1);
    assert_eq!(system.done("laptop", &import).objects()[0]["unchanged"], 1);
    let copy = system.place.path().join("copy");
    system.done("laptop", &format!("pull acme/alice/other {}", copy.display()));
    assert!(fs::read(copy.join("large")).unwrap() == value, "another value came");
}
