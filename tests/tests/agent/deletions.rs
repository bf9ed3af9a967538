//! Files that are removed one after the other while agents run: no piece of it is much, and all of it is held back.

use std::fs;

use roam_agent::{Kind, Question};
use roam_tests::{World, eventually};

use super::Laptop;

const FILES: usize = 60;
const PIECE: usize = 10;

fn name(number: usize) -> String {
    format!("d{}/f{number}", number % 3)
}

async fn counts(device: &Laptop, wanted: usize) {
    let what = format!("{} has {wanted} files", device.name);
    eventually(&what, async || (device.files().len() == wanted).then_some(())).await;
}

async fn held_back(device: &Laptop, of: &str) {
    let what = format!("{} holds deletions back", device.name);
    eventually(&what, async || {
        let status = device.ask(Question::Status).await;
        (status["files"]["held_back"][of].as_u64()? > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_removed_in_pieces_is_kept_elsewhere_until_somebody_confirms() {
    let world = World::new().start().await;
    let url = world.nats.client_url();
    let mut laptop = Laptop::new("laptop", &url, Kind::Tree);
    let phone = Laptop::new("phone", &url, Kind::Tree).start();
    (0..FILES).for_each(|number| laptop.write(&name(number), "x"));
    laptop.launch();
    counts(&phone, FILES).await;
    for piece in 0..FILES / PIECE {
        let numbers = piece * PIECE..(piece + 1) * PIECE;
        numbers.for_each(|number| fs::remove_file(laptop.at(&name(number))).unwrap());
        let gone = (piece + 1) * PIECE;
        if 2 * gone <= FILES {
            counts(&phone, FILES - gone).await;
            // What was removed before counts for the next process, too.
            laptop.kill().await;
            laptop.launch();
        } else {
            held_back(&laptop, "publish").await;
        }
    }
    assert_eq!(phone.files().len(), FILES / 2);
    let confirm = Question::Confirm { app: "files".to_owned() };
    laptop.ask(confirm.clone()).await;
    held_back(&phone, "take").await;
    assert_eq!(phone.files().len(), FILES / 2, "one device does not confirm for another");
    phone.ask(confirm).await;
    counts(&phone, 0).await;
}
