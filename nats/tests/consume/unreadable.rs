//! Messages that the library of the bus cannot read, or takes for something else.

use super::*;

#[tokio::test]
async fn a_message_that_looks_like_a_status_is_a_message() {
    let world = world_of(0).await;
    world.raw_publish("S.a", "NATS/1.0 409 Consumer Deleted\r\n\r\n").await;
    world.store("S.a", "2").await;
    let mut deliveries = open(&world, 10).await;
    for sequence in 1..=2 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.stream_sequence, sequence);
        delivery.ack();
    }
}

fn untrusted() -> PullSettings {
    PullSettings { untrusted: true, ..settings(100) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_library_cannot_read_is_delivered_with_what_of_it_is_text() {
    let world = world_of(1).await;
    let reader = world.connect().await;
    let mut deliveries = Deliveries::open(&reader, "S", "d", untrusted()).await.unwrap();
    next(&mut deliveries).await.ack();
    let (good, bad) = (&b"NATS/1.0\r\nA: 1\r\n\r\n"[..], b"NATS/1.0\r\nA: \xff\r\n\r\n");
    let unreadable: [(&[u8], &[u8]); 4] =
        [(b"S.\xff", good), (b"S.b", bad), (b"S.c", b"NATS/1.0\r\nA: a\rb\r\n\r\n"), (b"S.\xc2\xa0x", good)];
    let mut sequence = 1;
    for (subject, headers) in unreadable {
        world.raw_publish(subject, headers).await;
        let began = Instant::now();
        world.store("S.a", "2").await;
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            let delivery = next(&mut deliveries).await;
            // What was settled just before may come again: how it was settled may have been lost with the connection.
            if delivery.stream_sequence > sequence {
                seen.insert((
                    delivery.stream_sequence,
                    delivery.message.subject.clone(),
                    delivery.message.payload.len(),
                ));
            }
            if delivery.message.subject == "S.a" { delivery.ack() } else { delivery.term() }
        }
        // The durable's `ack_wait` is 30 s: what was lost with the connection did not wait for it.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let subject = String::from_utf8_lossy(subject).into_owned();
        let expected = [(sequence + 1, subject, 0), (sequence + 2, "S.a".to_owned(), 1)];
        assert_eq!(seen, BTreeSet::from(expected));
        sequence += 2;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_that_the_library_cannot_read_hold_up_no_others() {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    world.durable("S", "d", json!({ "ack_wait": 3_000_000_000_u64 })).await;
    let [first, second] = [world.connect().await, world.connect().await];
    let mut one = Deliveries::open(&first, "S", "d", untrusted()).await.unwrap();
    let mut two = Deliveries::open(&second, "S", "d", untrusted()).await.unwrap();
    for number in 0..20 {
        world.raw_publish("S.bad", "NATS/1.0\r\nA: a\rb\r\n\r\n").await;
        world.raw_publish(b"S.\xff", "NATS/1.0\r\n\r\n").await;
        world.store("S.a", &number.to_string()).await;
    }
    let (mut good, mut bad) = (BTreeSet::new(), BTreeSet::new());
    while good.len() < 20 || bad.len() < 40 {
        let delivery = soon(async {
            tokio::select! {
                delivery = one.next() => delivery.unwrap(),
                delivery = two.next() => delivery.unwrap(),
            }
        })
        .await;
        if delivery.message.subject == "S.a" {
            good.insert(delivery.stream_sequence);
            delivery.ack();
        } else {
            bad.insert(delivery.stream_sequence);
            delivery.term();
        }
    }
}
