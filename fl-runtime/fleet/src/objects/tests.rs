//! Bodies in a store in memory.

use object_store::memory::InMemory;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_what_was_written_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let other: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (store, spools) = (other.clone(), folder.path().to_path_buf());
    let open =
        move |spool| Objects::over(store.clone(), "memory", &spools.join(spool), None).unwrap();
    let (here, there) = (open("a"), open("b"));
    let checked = tokio::task::spawn_blocking(move || {
        let digest = here.put(b"a model").unwrap();
        assert_eq!(there.read(&digest).unwrap(), b"a model");
        assert_eq!(there.piece(&digest, 2, 3).unwrap(), b"mod");
        assert_eq!(there.length(&Digest([1; 32])).unwrap(), None);
        // One that is damaged in this process' folder is fetched anew, and what an earlier process
        // left there isn't trusted.
        let path = there.spool.model_path(&digest);
        std::fs::write(&path, "a mod").unwrap();
        assert_eq!(there.read(&digest).unwrap(), b"a model");
        std::fs::write(&path, "").unwrap();
        assert_eq!(open("b").length(&digest).unwrap(), Some(7));
        // Of an update longer than one part, through a file that comes in by pieces.
        let (turn, client) = (Turn::new(2, 1), ClientId([1; 32]));
        let body: Vec<u8> = (0..PART + 12_345).map(|i| (i % 251) as u8).collect();
        for length in [10, body.len()] {
            let body = &body[..length];
            let mut partial = here.partial(turn, &client).unwrap();
            partial.clear().unwrap();
            body.chunks(3 << 20).for_each(|part| partial.append(part).unwrap());
            let digest = Digest::of(body);
            here.accept(&partial, turn, &client, &digest).unwrap();
            let mut read = Vec::new();
            let mut found = there.upload(turn, &client, &digest).unwrap().unwrap();
            found.read_to_end(&mut read).unwrap();
            assert!(read == body, "{length} bytes");
        }
        assert!(there.upload(Turn::new(2, 2), &client, &digest).unwrap().is_none());
        // Fetched ahead, read twice, out of order, and gone.
        let bodies: Vec<Vec<u8>> = (0..40u8).map(|number| vec![number; 50]).collect();
        for body in &bodies {
            let mut partial = here.partial(turn, &client).unwrap();
            partial.clear().unwrap();
            partial.append(body).unwrap();
            here.accept(&partial, turn, &client, &Digest::of(body)).unwrap();
        }
        let updates: Vec<_> = bodies.iter().map(|body| (client, Digest::of(body))).collect();
        there.expect(turn, &updates, 50).unwrap();
        for body in bodies.iter().chain(&bodies[39..]).chain(&bodies[..1]) {
            let mut read = Vec::new();
            let mut found = there.upload(turn, &client, &Digest::of(body)).unwrap().unwrap();
            found.read_to_end(&mut read).unwrap();
            assert_eq!(read, *body);
        }
        there.expect(turn, &[(client, Digest([1; 32]))], 50).unwrap();
        assert!(there.upload(turn, &client, &Digest([1; 32])).unwrap().is_none());
        // A sum that isn't what was written is none.
        let made = here.put_sum("2-1/0-aa", vec![1, 2, 3]).unwrap();
        assert_eq!(there.read_sum("2-1/0-aa", &made).unwrap().as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!(there.read_sum("2-1/0-aa", &digest).unwrap(), None);
        assert_eq!(there.read_sum("2-1/0-bb", &made).unwrap(), None);
        (digest, open("c"))
    });
    let (digest, third) = checked.await.unwrap();
    // A model that is damaged in the store is named by a process that hasn't it yet.
    other.put(&model(&digest), "a modal".into()).await.unwrap();
    let error = tokio::task::spawn_blocking(move || third.read(&digest).unwrap_err());
    let error = error.await.unwrap().to_string();
    assert!(error.contains("SHA-256") && error.contains(&digest.to_string()), "{error}");
}

/// As clients ask a gateway for the model of a round that begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_all_ask_for_is_whole_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let open = |spool| Objects::over(store.clone(), "", &folder.path().join(spool), None).unwrap();
    let (leader, gateway) = (open("leader"), open("gateway"));
    let ask = move || {
        for number in 0..100u8 {
            let digest = leader.put(&vec![number; 50_000]).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        assert_eq!(gateway.length(&digest).unwrap(), Some(50_000));
                        let piece = gateway.piece(&digest, 49_000, 1_000).unwrap();
                        assert_eq!(piece, vec![number; 1_000]);
                    });
                }
                // As another round begins.
                gateway.sweep(&[digest], Turn::new(1, 1), &|_| false).unwrap();
            });
        }
    };
    tokio::task::spawn_blocking(ask).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_go_once_they_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let objects = Objects::over(store.clone(), "memory", folder.path(), None).unwrap();
    let digest = Digest([3; 32]);
    let places = [
        format!("models/{digest}"),
        format!("updates/7-2/{digest}"),
        format!("updates/8-1/{digest}"),
        "sums/7-2/5-00ff".into(),
        "else/7-2/5".into(),
    ];
    for place in &places {
        store.put(&Path::from(place.as_str()), "x".into()).await.unwrap();
    }
    let keep = |orphan: &Orphan<'_>| matches!(orphan, Orphan::Update(turn, _) if turn.round == 8);
    let now = tern_host::clock::now().0;
    let hour = Duration::from_secs(3600);
    assert!(objects.orphans(now, hour, keep).await.unwrap().is_empty());
    let orphans = objects.orphans(now + 3_700_000, hour, keep).await.unwrap();
    assert_eq!(orphans.len(), 3);
    objects.remove(&orphans).await.unwrap();
    let left: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut left: Vec<String> = left.iter().map(|object| object.location.to_string()).collect();
    left.sort();
    assert_eq!(left, [places[4].clone(), places[2].clone()]);
    assert_eq!(Orphan::of("updates/7-2/aa"), Some(Orphan::Update(Turn::new(7, 2), "aa")));
    for wrong in ["", "models", "models/x", "updates/7/aa", "sums/7-x/1", "sums/7-2"] {
        assert_eq!(Orphan::of(wrong), None, "{wrong}");
    }
}
