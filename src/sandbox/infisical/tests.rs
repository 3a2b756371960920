use super::*;

#[tokio::test]
async fn it_starts() {
    let mut world = World::new(Clock::real());
    world.tell();
    let stand_in = StandIn::start(world).await.unwrap();
    assert!(stand_in.url().starts_with("http://127.0.0.1:"));
}
