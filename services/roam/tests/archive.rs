//! A profile taken out of a real system and put into it again.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use crate::{
    program::roam,
    support::{PROFILE, Ran, System},
};
use serde_json::{Value, json};

const OTHER: &str = "acme/alice/other";

/// Keys with awkward values: text, no text, nothing, and as much as a key takes.
const VALUES: [(&str, &[u8], &str); 6] = [
    ("text", "dark\r\n\t\"ключ\"".as_bytes(), "text/plain"),
    ("control", b"\0\x1b[2J", "text/plain"),
    ("bytes", &[0xff, 0x00, 0xfe, 0x0a], "application/octet-stream"),
    ("empty", b"", "application/json"),
    ("dir/we\u{202e}ird \"key\"", b"{}", "application/json"),
    ("large", &[0x81; 256 * 1024], "application/octet-stream"),
];

fn fill(system: &System, profile: &str) {
    let file = system.place.path().join("value");
    for (key, value, content_type) in VALUES {
        fs::write(&file, value).unwrap();
        let file = file.to_str().unwrap();
        let ran = system.run_args("laptop", ["put", profile, key, "--file", file, "--content-type", content_type]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    system.done("laptop", &format!("put {profile} token secret --ttl 1h"));
    system.done("laptop", &format!("put {profile} gone x"));
    system.done("laptop", &format!("rm {profile} gone"));
}

fn export(system: &System, profile: &str, name: &str) -> (PathBuf, Vec<Value>) {
    let path = system.place.path().join(name);
    system.done("laptop", &format!("export {profile} --output {}", path.display()));
    let lines = fs::read_to_string(&path).unwrap();
    (path, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn import(system: &System, profile: &str, file: &std::path::Path, rest: &str) -> Ran {
    system.run("laptop", &format!("import {profile} {} {rest}", file.display()))
}

/// What must be the same on both sides.
fn contents(lines: &[Value]) -> Vec<[&Value; 3]> {
    lines[1..].iter().map(|line| [&line["key"], &line["content_type"], &line["value"]]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_comes_back_byte_by_byte_and_a_second_time_nothing_is_written() {
    let system = System::start().await;
    fill(&system, PROFILE);
    let (file, lines) = export(&system, PROFILE, "first");
    let header = &lines[0];
    assert_eq!((&header["format"], &header["version"]), (&json!("roam-export"), &json!(1)));
    assert_eq!((&header["profile"], &header["head"], &header["records"]), (&json!(PROFILE), &json!(9), &json!(7)));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let to_stdout = system.done("laptop", &format!("export {PROFILE}"));
    assert_eq!(to_stdout.stdout, fs::read_to_string(&file).unwrap());

    let dry = import(&system, OTHER, &file, "--dry-run --json").objects();
    assert_eq!((dry.len(), &dry[7]["imported"], &dry[7]["dry_run"]), (8, &json!(7), &json!(true)));
    let report = import(&system, OTHER, &file, "--json").objects();
    assert_eq!((&report[0]["imported"], &report[0]["unchanged"]), (&json!(7), &json!(0)));
    assert_eq!((&report[0]["from"], &report[0]["revision"]), (&json!(PROFILE), &json!(1)), "one change");
    let (copy, copied) = export(&system, OTHER, "second");
    assert_eq!(contents(&copied), contents(&lines));
    for (key, value, _) in VALUES {
        let path = system.place.path().join("got");
        fs::write(&path, get(&system, OTHER, key)).unwrap();
        assert!(fs::read(&path).unwrap() == value, "{key:?}");
    }

    for file in [&file, &copy] {
        let again = import(&system, OTHER, file, "--json").objects();
        assert_eq!((&again[0]["imported"], &again[0]["unchanged"]), (&json!(0), &json!(7)));
        assert_eq!(again[0]["revision"], json!(null));
    }
    let token = |lines: &[Value]| lines.iter().find(|line| line["key"] == "token").unwrap()["expires"].clone();
    let [before, after] = [&lines, &copied].map(|lines| roam_schemas::Timestamp::parse(token(lines).as_str().unwrap()));
    let apart = before.unwrap().as_nanos().abs_diff(after.unwrap().as_nanos());
    assert!(apart < 10_000_000_000, "a time to live goes on where it was, and is {apart} ns off");
}

/// The value of a key, as bytes.
fn get(system: &System, profile: &str, key: &str) -> Vec<u8> {
    let output =
        roam().args(["get", profile, key, "--server", system.server(), "--device", "looker"]).output().unwrap();
    assert!(output.status.success(), "{key:?}");
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_written_and_what_is_over_is_not() {
    let system = System::start().await;
    for words in ["theme dark", "font mono"] {
        system.done("laptop", &format!("put {PROFILE} {words}"));
    }
    let (file, _) = export(&system, PROFILE, "export");
    for words in ["theme light", "mine kept"] {
        system.done("phone", &format!("put {PROFILE} {words}"));
    }
    let lines = fs::read_to_string(&file).unwrap().replace("\"records\":2", "\"records\":3");
    let over = r#"{"key":"over","content_type":"text/plain","value":"x","expires":"2001-01-01T00:00:00Z"}"#;
    fs::write(&file, format!("{lines}{over}\n")).unwrap();

    let dry = import(&system, PROFILE, &file, "--dry-run");
    let expected = "~ theme  5 B -> 4 B  \"light\" -> \"dark\"\n\
                    would import 1 record; 1 unchanged, 1 expired; nothing was written\n";
    assert_eq!((dry.code, dry.stdout.as_str()), (0, expected), "{}", dry.stderr);
    assert_eq!(system.head(), 4);
    let report = import(&system, PROFILE, &file, "--json").objects();
    assert_eq!((&report[0]["imported"], &report[0]["expired"]), (&json!(1), &json!(1)));
    let values = ["theme", "font", "mine", "over"].map(|key| system.value(key));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(values, [text("dark"), text("mono"), text("kept"), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_with_a_line_that_is_not_right_nothing_is_written() {
    let system = System::start().await;
    for words in ["a 1", "b 2", "c 3"] {
        system.done("laptop", &format!("put {PROFILE} {words}"));
    }
    let (file, _) = export(&system, PROFILE, "export");
    let whole = fs::read_to_string(&file).unwrap();
    let (cut, _) = whole.split_at(whole.len() - 10);
    let (short, _) = whole.trim_end().rsplit_once('\n').unwrap();
    for (bad, why) in [
        (whole.replace("\"key\":\"c\"", "\"key\":\"a\""), "line 4: its key is that of line 2"),
        (whole.replace("\"value\":\"2\"", "\"value\":2"), "line 3: invalid type"),
        (cut.to_owned(), "line 4: EOF"),
        (short.to_owned(), "it says that it has 3 records, and has 2"),
    ] {
        fs::write(&file, bad).unwrap();
        let ran = import(&system, OTHER, &file, "");
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(why) && ran.stderr.contains("nothing was written"), "{why}: {}", ran.stderr);
    }
    let (_, nothing) = export(&system, OTHER, "nothing");
    assert_eq!((nothing.len(), &nothing[0]["head"]), (1, &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_profiles_of_a_user_come_back_and_a_second_time_nothing_is_written() {
    let system = System::start().await;
    fill(&system, PROFILE);
    fs::write(system.place.path().join("value"), [7; 400_000]).unwrap();
    let value = system.place.path().join("value");
    system.done("laptop", &format!("put acme/alice/mail book --file {}", value.display()));
    system.done("laptop", "put acme/alice/empty gone x");
    system.done("laptop", "rm acme/alice/empty gone");
    system.done("laptop", "put acme/bob/mail font serif");

    let (file, lines) = export(&system, "acme/alice", "alice");
    let header = json!({"format": "roam-export-user", "version": 1, "user": "acme/alice", "profiles": 3});
    assert_eq!(lines[0], header);
    let names: Vec<_> = lines.iter().filter_map(|line| line.get("profile")).collect();
    assert_eq!(names, ["acme/alice/editor", "acme/alice/empty", "acme/alice/mail"]);

    let dry = system.done("laptop", &format!("import acme/carol {} --dry-run", file.display()));
    assert!(dry.stdout.contains("acme/carol/mail\n+ book  390.6"), "{}", dry.stdout);
    assert_eq!(system.run("laptop", "get acme/carol/mail book").code, 2, "nothing was written");
    let imported = system.done("laptop", &format!("import acme/carol {} --json", file.display())).objects();
    let told: Vec<_> = imported.iter().map(|report| (&report["profile"], &report["imported"])).collect();
    let [editor, empty, mail] = ["editor", "empty", "mail"].map(|app| json!(format!("acme/carol/{app}")));
    assert_eq!(told, [(&editor, &json!(7)), (&empty, &json!(0)), (&mail, &json!(1))]);
    let again = system.done("laptop", &format!("import acme/carol {} --json", file.display())).objects();
    assert!(again.iter().all(|report| report["imported"] == 0 && report["revision"].is_null()), "{again:?}");
    let [(_, one), (_, other)] = ["editor", "mail"].map(|app| export(&system, &format!("acme/carol/{app}"), app));
    assert_eq!(contents(&one), contents(&lines[1..9]));
    assert_eq!(contents(&other), contents(&lines[10..]));

    // Named apps are not asked for.
    let (file, lines) = export(&system, "acme/alice --app mail", "mail-only");
    assert_eq!((lines.len(), &lines[0]["profiles"]), (3, &json!(1)));
    let into_one = import(&system, OTHER, &file, "");
    assert!(into_one.code == 64 && into_one.stderr.contains("all profiles of a user"), "{into_one:?}");
    let nobody = system.run("laptop", "export acme/nobody");
    assert_eq!(nobody.code, 2, "{nobody:?}");
    let cut = fs::read_to_string(&file).unwrap().replace("\"profiles\":1", "\"profiles\":2");
    fs::write(&file, cut).unwrap();
    let refused = system.run("laptop", &format!("import acme/dave {}", file.display()));
    assert!(refused.code == 1 && refused.stderr.contains("2 profiles, and has 1"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_through_a_pipe_is_imported_as_well() {
    let system = System::start().await;
    for words in ["theme dark", "font mono"] {
        system.done("laptop", &format!("put {PROFILE} {words}"));
    }
    let (file, _) = export(&system, PROFILE, "piped");
    let ran = system.run_with_input("laptop", &format!("import {OTHER} -"), &fs::read(&file).unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("imported 2 records"), "{}", ran.stdout);
    let bad = system.run_with_input("laptop", &format!("import {OTHER} -"), b"rubbish");
    assert!(bad.code == 1 && bad.stderr.contains("line 1:"), "{bad:?}");
}
