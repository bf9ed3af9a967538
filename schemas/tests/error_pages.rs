//! The pages in `docs/errors/`: one of each code, found in the index, with an example that is a golden problem.

use std::{collections::BTreeSet, fs};

use crate::support::{cases, fenced, files_below, in_workspace};
use roam_schemas::{Code, Encoding, Problem, decode};

fn page(name: &str) -> String {
    let path = in_workspace("docs/errors").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let mut expected: BTreeSet<_> = Code::ALL.iter().map(|code| format!("{code}.md")).collect();
    expected.insert("README.md".to_owned());
    assert_eq!(files_below(&in_workspace("docs/errors")), expected);
}

#[test]
fn every_code_has_one_line_in_the_index_that_leads_to_its_page() {
    let index = page("README.md");
    for code in Code::ALL {
        let link = format!("[`{code}`]({code}.md)");
        let lines: Vec<_> = index.lines().filter(|line| line.contains(&link)).collect();
        assert_eq!(lines.len(), 1, "{link}");
        let retry = if code.retry() { "| yes |" } else { "| no |" };
        assert!(lines[0].contains(retry), "whether a retry can help: {}", lines[0]);
    }
}

#[test]
fn every_page_says_what_a_client_needs_to_know() {
    for code in Code::ALL {
        let page = page(&format!("{code}.md"));
        assert!(page.starts_with(&format!("# `{code}`\n")), "{code}");
        for heading in ["## When it comes", "## What to do", "## Fields", "## Example"] {
            assert!(page.contains(&format!("\n{heading}\n")), "{code}: {heading}");
        }
        for stage in ["validate", "decide", "respond"] {
            assert!(page.contains(&format!("**{stage}**")), "{code}: {stage}");
        }
        for field in ["limit", "actual", "failed", "retry"] {
            assert!(page.contains(&format!("| `{field}` |")), "{code}: {field}");
        }
    }
}

#[test]
fn the_example_of_every_page_is_the_golden_problem_of_its_code() {
    for code in Code::ALL {
        let page = page(&format!("{code}.md"));
        let [example] = fenced(&page, "json")[..] else { panic!("{code}: one example") };
        let problem: Problem = decode(example.as_bytes(), Encoding::Json).unwrap();
        assert_eq!(problem.code, code);
        assert_eq!(problem.retry, code.retry(), "{code}");
        let golden =
            cases::all().into_iter().find(|case| (case.key, case.name) == ("problem_v1", code.as_str())).unwrap();
        assert_eq!(Ok(problem), decode(&golden.spelling.json, Encoding::Json), "{code}");
    }
}
