//! Settings: where they come from, which wins, and what is said when they are wrong.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use roam_process::settings::{Assigned, ExampleError, Problems, Sources, check_example, load, print};
use roam_process::telemetry::LogFormat;
use roam_process::{Problem, ProcessSettings, Settings};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

/// Settings with one field of each sort that services have.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    process: ProcessSettings,
    bus: Bus,
    apply: Apply,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Bus {
    servers: Vec<String>,
    tls: bool,
    credentials: Option<PathBuf>,
    password: Option<String>,
    weights: Vec<u16>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Apply {
    batch: u16,
    share: f64,
    lowest: i64,
    highest: i64,
}

impl Default for Bus {
    fn default() -> Bus {
        Bus {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            tls: false,
            credentials: None,
            password: None,
            weights: Vec::new(),
        }
    }
}

impl Default for Apply {
    fn default() -> Apply {
        Apply { batch: 500, share: 0.5, lowest: -10, highest: 10 }
    }
}

impl Settings for Sample {
    const ABOUT: &'static str = "A sample";
    const EXAMPLE: &'static str = EXAMPLE;

    fn process(&self) -> &ProcessSettings {
        &self.process
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.bus.servers.is_empty() {
            problems.push(Problem::new("bus.servers", "must name at least one"));
        }
        for server in self.bus.servers.iter().filter(|server| server.contains(' ')) {
            problems.push(Problem::new("bus.servers", format!("cannot have {server:?}")));
        }
        if self.apply.batch == 0 {
            problems.push(Problem::new("apply.batch", "must be from 1, not 0"));
        }
        if self.apply.lowest > self.apply.highest {
            problems.push(Problem::new("apply.lowest", "must not exceed apply.highest"));
        }
        problems
    }
}

const EXAMPLE: &str = r#"
[process]
listen = "127.0.0.1:9600"
log_format = "text"
log_filter = "info"
grace_seconds = 7

[bus]
# Any of them.
servers = ["nats://127.0.0.1:4222"]
tls = false
#credentials = "/etc/roam/service.creds"
#password = "of the user"
weights = []

[apply]
batch = 500
share = 0.5
lowest = -10
highest = 10
"#;

/// What is read; the rest is set up by the methods.
#[derive(Default)]
struct Given {
    file: Option<NamedTempFile>,
    sources: Sources,
}

impl Given {
    fn file(mut self, text: &str) -> Given {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.sources.file = Some(file.path().to_owned());
        self.file = Some(file);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Given {
        let variable = (name.into(), value.into());
        self.sources.environment.push(variable);
        self
    }

    fn set(self, assignment: &str) -> Given {
        self.flag("--set", assignment)
    }

    fn flag(mut self, flag: &'static str, assignment: &str) -> Given {
        let assignment = assignment.to_owned();
        self.sources.flags.push(Assigned { flag, assignment });
        self
    }

    fn load(&self) -> Result<Sample, Problems> {
        load("roam-sample", &self.sources)
    }

    /// The problems, a line each, the file called `FILE`.
    fn problems(&self) -> Vec<String> {
        let problems = self.load().unwrap_err();
        let path = self.sources.file.as_ref().map(|file| file.display());
        let path = path.map_or("no file".to_owned(), |path| path.to_string());
        let shown = problems.list().iter().map(ToString::to_string);
        shown.map(|line| line.replace(&path, "FILE")).collect()
    }
}

fn given() -> Given {
    Given::default()
}

#[test]
fn without_any_source_the_defaults_hold() {
    assert_eq!(given().load().unwrap(), Sample::default());
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "[apply]\nbatch = 1\nshare = 0.1\nlowest = 1\n[bus]\ntls = true";
    let settings = given()
        .file(file)
        .env("ROAM_SAMPLE__APPLY__BATCH", "2")
        .env("ROAM_SAMPLE__APPLY__SHARE", "0.2")
        .set("apply.batch=3")
        .set("apply.highest=1")
        .set("apply.highest=4")
        .flag("--log-format", "process.log_format=json")
        .load()
        .unwrap();
    assert_eq!(settings.apply.batch, 3, "flag over environment over file");
    assert_eq!(settings.apply.share, 0.2, "environment over file");
    assert_eq!(settings.apply.lowest, 1, "file over default");
    assert_eq!(settings.apply.highest, 4, "the later flag");
    assert!(settings.bus.tls);
    assert_eq!(settings.process.log_format, LogFormat::Json);
    let untouched = Sample::default();
    assert_eq!(settings.bus.servers, untouched.bus.servers);
}

#[test]
fn text_is_read_as_what_the_field_expects() {
    let settings = given()
        .env("ROAM_SAMPLE__BUS__SERVERS", "nats://a, nats://b")
        .env("ROAM_SAMPLE__BUS__WEIGHTS", "1,2,0x10")
        .env("ROAM_SAMPLE__BUS__TLS", "true")
        .env("ROAM_SAMPLE__BUS__PASSWORD", "12345")
        .env("ROAM_SAMPLE__APPLY__SHARE", "1")
        .env("ROAM_SAMPLE__APPLY__LOWEST", "-1_000")
        .env("ROAM_SAMPLE__PROCESS__LISTEN", "[::1]:9")
        .load()
        .unwrap();
    assert_eq!(settings.bus.servers, ["nats://a", "nats://b"]);
    assert_eq!(settings.bus.weights, [1, 2, 16]);
    assert!(settings.bus.tls);
    assert_eq!(settings.bus.password.as_deref(), Some("12345"));
    assert_eq!(settings.apply.share, 1.0);
    assert_eq!(settings.apply.lowest, -1000);
    assert_eq!(settings.process.listen, "[::1]:9".parse().unwrap());
}

#[test]
fn lists_can_also_be_written_as_toml_and_be_empty() {
    let array = given().set(r#"bus.servers=["nats://a,b", 'nats://c']"#);
    assert_eq!(array.load().unwrap().bus.servers, ["nats://a,b", "nats://c"]);
    let empty = given().set("bus.weights=1").set("bus.weights=");
    assert_eq!(empty.load().unwrap().bus.weights, [0_u16; 0]);
}

#[test]
fn an_empty_value_unsets_what_may_be_unset() {
    let given = given().file("[bus]\ncredentials = '/a'\npassword = 'b'").env("ROAM_SAMPLE__BUS__CREDENTIALS", "");
    let settings = given.load().unwrap();
    assert_eq!(settings.bus.credentials, None);
    assert_eq!(settings.bus.password.as_deref(), Some("b"));
}

#[test]
fn only_variables_with_the_prefix_and_two_underscores_are_ours() {
    let settings = given()
        .env("ROAM_SAMPLE_PORT", "tcp://10.0.0.1:80")
        .env("ROAM_SAMPLER__APPLY__BATCH", "many")
        .env("ROAM_STORAGE__APPLY__BATCH", "many")
        .env("APPLY__BATCH", "many")
        .load();
    assert_eq!(settings.unwrap(), Sample::default());
}

#[test]
fn all_problems_of_all_layers_are_said_at_once_with_their_places() {
    let file = "\
[bus]
sevrers = [\"nats://a\"]
tls = \"yes\"
weights = [1, 70000]

[aply]
batch = 3
share = 1

[apply]
batch = -1
";
    let given = given()
        .file(file)
        .env("ROAM_SAMPLE__APPLY__SHARE", "half")
        .env("ROAM_SAMPLE__BUS", "nats://a")
        .set("apply.highest=11.5")
        .set("servers=nats://a")
        .set("apply.depth=1")
        .set("apply.batch")
        .set("apply.=3")
        .flag("--log-format", "process.log_format=xml")
        .set("process.grace_seconds=0");
    let expected = [
        "--set: must be followed by SECTION.FIELD=VALUE",
        "--set: must be followed by SECTION.FIELD=VALUE",
        "FILE:2: bus.sevrers is not a setting; did you mean bus.servers?",
        "FILE:3: bus.tls must be true or false, not \"yes\"",
        "FILE:4: bus.weights[1] must be a whole number from 0 to 65535, not 70000",
        "FILE:6: aply is not a setting; did you mean apply?",
        "FILE:11: apply.batch must be a whole number from 0 to 65535, not -1",
        "ROAM_SAMPLE__APPLY__SHARE: apply.share must be a number, not \"half\"",
        "ROAM_SAMPLE__BUS: bus must be a section, not \"nats://a\"",
        "--set: apply.highest must be a whole number, not \"11.5\"",
        "--set: servers is not a setting; did you mean bus.servers?",
        "--set: apply.depth is not a setting; there are batch, share, lowest, highest",
        "--log-format: process.log_format must be text or json, not \"xml\"",
        "--set: process.grace_seconds must be from 1 to 600, not 0",
    ];
    let problems = given.problems();
    for (problem, expected) in problems.iter().zip(expected) {
        assert_eq!(problem, expected);
    }
    assert_eq!(problems.len(), expected.len());
    let said = given.load().unwrap_err().to_string();
    let first = "roam-sample: 14 problems in the configuration\n  --set: must";
    assert!(said.starts_with(first), "{said}");
}

#[test]
fn a_single_problem_is_not_called_problems() {
    let said = given().set("a.b=c").load().unwrap_err().to_string();
    assert!(said.starts_with("roam-sample: 1 problem in the configuration\n"));
}

#[test]
fn rules_between_fields_name_the_layer_that_won() {
    let problems = given()
        .file("[apply]\nlowest = 20\nbatch = 0\n[bus]\nservers = []")
        .env("ROAM_SAMPLE__APPLY__BATCH", "0")
        .problems();
    let expected = [
        "FILE:5: bus.servers must name at least one",
        "ROAM_SAMPLE__APPLY__BATCH: apply.batch must be from 1, not 0",
        "FILE:2: apply.lowest must not exceed apply.highest",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn a_refused_value_does_not_accuse_a_field_that_nobody_set() {
    let problems = given().set("apply.highest=-20x").problems();
    let expected = "--set: apply.highest must be a whole number, not \"-20x\"";
    assert_eq!(problems, [expected]);
}

#[test]
fn what_a_field_s_own_type_refuses_is_shown_with_its_reason() {
    let problems = given().set("process.listen=localhost").problems();
    let expected = "--set: process.listen cannot be \"localhost\": invalid socket \
                    address syntax";
    assert_eq!(problems, [expected]);
}

#[test]
fn every_syntax_error_of_a_file_is_said_with_its_line() {
    let problems = given().file("[bus]\ntls = maybe\n\n[apply\nbatch = 1\n").set("apply.batch=none").problems();
    assert!(problems[0].starts_with("FILE:2: "), "{problems:?}");
    assert!(problems[1].starts_with("FILE:4: "), "{problems:?}");
    let last = problems.last().unwrap();
    assert!(last.starts_with("--set: "), "{problems:?}");
}

#[test]
fn a_number_too_large_for_toml_is_a_problem_of_its_line() {
    let problems = given().file("[apply]\nlowest = 99999999999999999999").problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("FILE:2: apply.lowest "), "{problems:?}");
}

#[test]
fn a_file_that_was_named_must_exist() {
    let mut given = given();
    given.sources.file = Some("/nonexistent/roam.toml".into());
    let problems = given.problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("FILE: cannot be read: "), "{problems:?}");
}

#[test]
fn environment_variables_of_odd_shape_are_problems() {
    let mut given = given().env("ROAM_SAMPLE__APPLY____BATCH", "1");
    let value = OsString::from_vec(vec![b'a', 0xff]);
    let odd = ("ROAM_SAMPLE__BUS__PASSWORD".into(), value);
    given.sources.environment.push(odd);
    let expected = [
        "ROAM_SAMPLE__APPLY____BATCH: is not SECTION__FIELD after the prefix",
        "ROAM_SAMPLE__BUS__PASSWORD: is not UTF-8",
    ];
    assert_eq!(given.problems(), expected);
}

#[test]
fn secrets_are_shown_neither_in_print_nor_in_problems() {
    let settings = given().set("bus.password=hunter2").set("bus.servers=nats://me:hunter2@a,nats://b").load().unwrap();
    let printed = print(&settings).unwrap();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("password = \"***\""), "{printed}");
    assert!(printed.contains("nats://***@a"), "{printed}");
    assert!(printed.contains("nats://b"), "{printed}");

    let problems = given()
        .file("[bus.password]\nhunter2 = 2")
        .set("bus.tls=nats://me:hunter2@a")
        .set("bus.password.x=hunter2")
        .problems();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(!problems[1..].concat().contains("hunter2"), "{problems:?}");
}

#[test]
fn credentials_in_what_a_service_says_itself_are_hidden() {
    let problems = given().set("bus.servers=nats://me:hunter2@a b").problems();
    assert_eq!(problems, ["--set: bus.servers cannot have \"nats://***@a b\""]);
}

#[test]
fn what_is_printed_reads_as_the_same_settings() {
    let given_first = given().set("apply.batch=7").set("bus.credentials=/etc/c");
    let settings = given_first.load().unwrap();
    let again = given().file(&print(&settings).unwrap()).load().unwrap();
    assert_eq!(again, settings);
}

#[test]
fn the_sample_s_example_agrees_with_its_defaults() {
    check_example::<Sample>().unwrap();
}

/// Makes settings whose example is this text.
macro_rules! settings_with_example {
    ($name:ident, $example:expr) => {
        #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct $name {
            process: ProcessSettings,
            size: u8,
            path: Option<PathBuf>,
        }

        impl Settings for $name {
            const ABOUT: &'static str = "A sample with an example of its own";
            const EXAMPLE: &'static str = $example;

            fn process(&self) -> &ProcessSettings {
                &self.process
            }

            fn validate(&self) -> Vec<Problem> {
                Vec::new()
            }
        }
    };
}

#[test]
fn an_example_that_parts_from_the_defaults_is_found() {
    settings_with_example!(Incomplete, "size = 0\n# path = '/'\n");
    let error = check_example::<Incomplete>().unwrap_err().to_string();
    assert!(error.contains(" path, process, process.grace"), "{error}");

    settings_with_example!(Other, "size = 1\n#path = '/'\n");
    let error = check_example::<Other>();
    assert!(matches!(error, Err(ExampleError::Differs { .. })));

    settings_with_example!(Mistyped, "size = 0\n#path = 3\n");
    let error = check_example::<Mistyped>();
    assert!(matches!(error, Err(ExampleError::Unreadable(_))));

    settings_with_example!(Unknown, "size = 0\n#path = '/'\n#colour = 'red'\n");
    let error = check_example::<Unknown>();
    assert!(matches!(error, Err(ExampleError::Unreadable(_))));

    settings_with_example!(Broken, "size =");
    let error = check_example::<Broken>();
    assert!(matches!(error, Err(ExampleError::Syntax(_))));
}
