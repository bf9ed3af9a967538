//! Writing below a directory, with everything in the way that can be.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::{place::FILE_MODE, *};

struct World {
    root: tempfile::TempDir,
    directory: Directory,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("outside/file"), "untouched").unwrap();
        let directory = Directory::open(&root.path().join("tree")).unwrap();
        Self { root, directory }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join("tree").join(path)
    }

    fn write(&mut self, path: &str, text: &str) -> Result<Written, WriteError> {
        let file =
            NewFile { names: path.split('/').collect(), holds: Source::Bytes(text.as_bytes()), over: Over::Anything };
        self.directory.write(&[file]).pop().unwrap()
    }

    fn remove(&mut self, path: &str) -> Result<bool, WriteError> {
        self.directory.remove(&path.split('/').collect::<Vec<_>>(), Over::Anything)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let names = fs::read_dir(self.at(path)).unwrap();
        let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn check_outside_is_untouched(&self) {
        let outside = self.root.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
    }
}

fn in_the_way<T: std::fmt::Debug>(result: Result<T, WriteError>) -> (&'static str, String) {
    match result {
        Err(WriteError::InTheWay { what, at }) => (what, at),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn files_are_made_with_their_directories_and_replaced_whole() {
    let mut world = World::new();
    assert_eq!(world.write("a/b/c", "one").unwrap(), Written::Changed);
    assert_eq!(world.write("a/b/c", "two").unwrap(), Written::Changed);
    assert_eq!(world.write("top", "").unwrap(), Written::Changed);
    world.directory.sync().unwrap();
    assert_eq!(world.read("a/b/c"), "two");
    assert_eq!(world.names("a/b"), ["c"], "no temporary file is left");
    assert_eq!(world.names(""), ["a", "top"]);
}

#[test]
fn a_file_that_holds_the_bytes_already_is_not_touched() {
    let mut world = World::new();
    world.write("a", "one").unwrap();
    let before = fs::metadata(world.at("a")).unwrap().ino();
    assert_eq!(world.write("a", "one").unwrap(), Written::Same);
    assert_eq!(fs::metadata(world.at("a")).unwrap().ino(), before);
    assert_eq!(world.write("a", "two").unwrap(), Written::Changed);
    assert_ne!(fs::metadata(world.at("a")).unwrap().ino(), before, "it is another file, renamed into its place");
}

#[test]
fn a_replaced_file_keeps_its_permissions_but_no_special_bit() {
    let mut world = World::new();
    world.write("a", "one").unwrap();
    for (mode, kept) in [(0o600, 0o600), (0o4755, 0o755), (0o666, 0o666)] {
        fs::set_permissions(world.at("a"), PermissionsExt::from_mode(mode)).unwrap();
        world.write("a", &format!("under {mode:o}")).unwrap();
        assert_eq!(fs::metadata(world.at("a")).unwrap().mode() & 0o7777, kept, "{mode:o}");
    }
}

#[test]
fn a_new_file_is_never_executable() {
    let mut world = World::new();
    world.write("a", "#!/bin/sh").unwrap();
    let mode = fs::metadata(world.at("a")).unwrap().mode() & 0o7777;
    assert_eq!(mode & !FILE_MODE, 0, "{mode:o}");
}

#[test]
fn a_symbolic_link_in_the_way_is_refused_and_leads_nowhere() {
    let mut world = World::new();
    symlink("../outside", world.at("dir")).unwrap();
    symlink("../outside/file", world.at("file")).unwrap();
    symlink("nowhere", world.at("dangling")).unwrap();
    fs::create_dir(world.at("deep")).unwrap();
    symlink("../../outside", world.at("deep/dir")).unwrap();
    for (path, at) in [
        ("dir/file", "dir"),
        ("dir/new", "dir"),
        ("file", "file"),
        ("dangling", "dangling"),
        ("dangling/a", "dangling"),
        ("deep/dir/a/b", "deep/dir"),
    ] {
        let expected = ("a symbolic link", at.to_owned());
        assert_eq!(in_the_way(world.write(path, "hostile")), expected, "{path}");
        assert_eq!(in_the_way(world.remove(path)), expected, "{path}");
    }
    world.check_outside_is_untouched();
    assert!(fs::symlink_metadata(world.at("file")).unwrap().is_symlink());
}

#[test]
fn a_file_and_a_directory_do_not_take_each_others_place() {
    let mut world = World::new();
    world.write("a", "file").unwrap();
    world.write("d/x", "file").unwrap();
    assert_eq!(in_the_way(world.write("a/b", "below a file")), ("a file", "a".to_owned()));
    assert_eq!(in_the_way(world.write("d", "over a directory")), ("a directory", "d".to_owned()));
    assert_eq!(in_the_way(world.remove("d")), ("a directory", "d".to_owned()));
    assert_eq!(world.read("a"), "file");
    assert_eq!(world.names("d"), ["x"]);
}

#[test]
fn a_removed_file_takes_empty_directories_with_it_and_no_others() {
    let mut world = World::new();
    for path in ["a/b/c/one", "a/two", "three"] {
        world.write(path, "x").unwrap();
    }
    assert!(world.remove("a/b/c/one").unwrap());
    assert_eq!(world.names("a"), ["two"]);
    assert!(world.remove("a/two").unwrap());
    assert!(world.remove("three").unwrap());
    world.directory.sync().unwrap();
    assert_eq!(world.names(""), [] as [&str; 0], "the directory itself stays");
    assert!(!world.remove("a/two").unwrap());
    assert!(!world.remove("three").unwrap());
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing_behind() {
    let mut world = World::new();
    let long = "n".repeat(256);
    assert!(matches!(world.write(&long, "x"), Err(WriteError::Io { .. })));
    assert_eq!(world.names(""), [] as [&str; 0]);
}

#[test]
fn many_files_at_once_are_all_written_and_each_is_told_of() {
    let mut world = World::new();
    world.write("same", "same").unwrap();
    symlink("../outside", world.at("link")).unwrap();
    let paths: Vec<String> = (0..3 * GROUP).map(|number| format!("d{}/f{number}", number % 7)).collect();
    let mut files: Vec<_> = paths
        .iter()
        .map(|path| NewFile {
            names: path.split('/').collect(),
            holds: Source::Bytes(path.as_bytes()),
            over: Over::Anything,
        })
        .collect();
    files.insert(10, NewFile { names: vec!["link", "x"], holds: Source::Bytes(b"hostile"), over: Over::Anything });
    files.insert(20, NewFile { names: vec!["same"], holds: Source::Bytes(b"same"), over: Over::Anything });
    for (at, written) in world.directory.write(&files).into_iter().enumerate() {
        match at {
            10 => assert_eq!(in_the_way(written).0, "a symbolic link"),
            20 => assert_eq!(written.unwrap(), Written::Same),
            _ => assert_eq!(written.unwrap(), Written::Changed),
        }
    }
    world.directory.sync().unwrap();
    assert!(paths.iter().all(|path| world.read(path) == *path));
    assert_eq!(world.names(""), ["d0", "d1", "d2", "d3", "d4", "d5", "d6", "link", "same"]);
    world.check_outside_is_untouched();
}

#[test]
fn of_a_file_and_a_directory_that_come_together_one_is_refused() {
    let mut world = World::new();
    let file = |path: &'static str| NewFile {
        names: path.split('/').collect(),
        holds: Source::Bytes(path.as_bytes()),
        over: Over::Anything,
    };
    let mut written = world.directory.write(&[file("a"), file("a/b")]);
    assert_eq!(written.pop().unwrap().unwrap(), Written::Changed);
    assert_eq!(in_the_way(written.pop().unwrap()), ("a directory", "a".to_owned()));
    assert_eq!(world.names(""), ["a"], "no temporary file is left");
    assert_eq!(world.read("a/b"), "a/b");
}

#[test]
fn a_file_that_was_edited_meanwhile_is_neither_replaced_nor_removed() {
    let mut world = World::new();
    world.write("a", "seen").unwrap();
    let seen = blake3::hash(b"seen");
    let replace = |world: &mut World, over| {
        world.directory.write(&[NewFile { names: vec!["a"], holds: Source::Bytes(b"theirs"), over }]).pop().unwrap()
    };
    fs::write(world.at("a"), "edited").unwrap();
    for over in [Over::Contents(seen), Over::Nothing] {
        assert!(matches!(replace(&mut world, over), Err(WriteError::Edited { .. })), "{over:?}");
        assert!(matches!(world.directory.remove(&["a"], over), Err(WriteError::Edited { .. })), "{over:?}");
        assert_eq!((world.read("a").as_str(), world.names("")), ("edited", vec!["a".to_owned()]));
    }
    assert_eq!(replace(&mut world, Over::Contents(blake3::hash(b"edited"))).unwrap(), Written::Changed);
    fs::remove_file(world.at("a")).unwrap();
    assert!(matches!(replace(&mut world, Over::Contents(seen)), Err(WriteError::Edited { .. })));
    assert_eq!(replace(&mut world, Over::Nothing).unwrap(), Written::Changed);
}

#[test]
fn a_file_is_set_aside_under_a_name_that_is_free_and_never_over_another_file() {
    let mut world = World::new();
    world.write("d/a", "one").unwrap();
    world.write("d/taken", "two").unwrap();
    assert!(!world.directory.set_aside(&["d", "a"], "taken").unwrap());
    assert!(!world.directory.set_aside(&["d", "none"], "free").unwrap());
    assert!(world.directory.set_aside(&["d", "a"], "free").unwrap());
    assert_eq!((world.read("d/free").as_str(), world.read("d/taken").as_str()), ("one", "two"));
    symlink(world.root.path().join("outside/file"), world.at("link")).unwrap();
    assert_eq!(in_the_way(world.directory.set_aside(&["link"], "free")).0, "a symbolic link");
}

#[test]
fn a_file_from_another_file_is_whole_or_not_there() {
    let mut world = World::new();
    let from = world.root.path().join("large");
    fs::write(&from, vec![7; 3_000_000]).unwrap();
    let new = |names: &'static str| NewFile {
        names: names.split('/').collect(),
        holds: Source::File(&from),
        over: Over::Nothing,
    };
    assert_eq!(world.directory.write(&[new("d/copy")]).pop().unwrap().unwrap(), Written::Changed);
    assert_eq!(fs::read(world.at("d/copy")).unwrap(), fs::read(&from).unwrap());
    let gone = world.root.path().join("gone");
    let missing = NewFile { names: vec!["d", "none"], holds: Source::File(&gone), over: Over::Nothing };
    assert!(matches!(world.directory.write(&[missing]).pop().unwrap(), Err(WriteError::Io { .. })));
    assert_eq!(world.names("d"), ["copy"], "no temporary file is left");
}

/// Of the device that says that it is full, whatever is written to it.
#[test]
fn a_full_disk_is_named() {
    let mut full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = io::Write::write_all(&mut full, b"x").unwrap_err();
    let error = WriteError::io(&["d", "file"], error);
    assert_eq!(error.to_string(), "the disk is full: there is no room for d/file");
}
