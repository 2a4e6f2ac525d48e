//! A server whose files are damaged while it runs.

use std::time::Instant;

use super::*;

#[test]
fn a_server_that_cannot_go_on_is_not_healthy() {
    let server = serve(Limits::default());
    assert_eq!(get(&server, "/health").0, 200);
    let models = std::fs::read_dir(server.folder.path().join("models")).unwrap();
    let path = models.map(|entry| entry.unwrap().path()).next().unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[1..]).unwrap();
    let poll = wire::Poll { samples: 5, ..Default::default() };
    event_loop().block_on(async {
        let http = enrolled(&server, 1).await;
        let _: wire::Instruction = post(&http, "/v1/poll", &poll).await.unwrap();
    });
    // Once the time to gather clients is over, the model is looked at, before anybody is sent it.
    let start = Instant::now();
    let (status, text) = loop {
        let answer = get(&server, "/health");
        if answer.0 != 200 || start.elapsed() > Duration::from_secs(60) {
            break answer;
        }
    };
    assert_eq!(status, 503, "{text}");
    assert!(text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
    assert!(text.contains("unhealthy"), "{text}");
}
