//! What a file is, by the ending of its name. Never looks into it.

use std::path::Path;

use roam_schemas::ContentType;

/// The content type of a file of that name; `application/octet-stream` if the name does not tell.
pub fn guess_content_type(path: &Path) -> ContentType {
    let guessed = mime_guess::from_path(path).first_raw();
    guessed.and_then(|text| ContentType::parse(text).ok()).unwrap_or_else(ContentType::octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_a_name_tells_what_a_file_is() {
        for (name, expected) in [
            ("a.json", "application/json"),
            ("dir.png/a.txt", "text/plain"),
            ("A.PNG", "image/png"),
            ("README", "application/octet-stream"),
            ("a.unheard-of", "application/octet-stream"),
            (".json", "application/octet-stream"),
        ] {
            assert_eq!(guess_content_type(Path::new(name)).as_str(), expected, "{name}");
        }
    }
}
