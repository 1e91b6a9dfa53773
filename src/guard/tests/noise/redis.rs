use palisade_guard::redis::Guard;
use palisade_test_support::Redis;
use redis::{Client, Value, cmd};

use crate::random::{Noise, parsed};
use crate::sealed;

const FENCE: &str = "palisade:{orders}:fence";

#[tokio::test]
async fn functions_of_redis() {
    let mut noise = Noise::new("redis");
    let server = Redis::start().await.unwrap();
    let client = Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (guard, good) = (Guard::new(), sealed());
    guard.install(&mut connection).await.unwrap();
    guard.seal(&mut connection, &good).await.unwrap();
    for _ in 0..5_000 {
        let texts = noise.grant(&good);
        let function = ["palisade_seal_1", "palisade_write_1", "palisade_status_1"][noise.below(3)];
        if function == "palisade_seal_1" && parsed(&texts).is_some() {
            // It may be a good seal.
            continue;
        }
        let mut call = cmd("FCALL");
        call.arg(function);
        match noise.below(4) {
            // A write by a grant that is not the sealed one.
            0 | 1 => {
                let fence = format!("palisade:{{{}}}:fence", texts[0]);
                call.arg(2).arg([fence.as_str(), FENCE][noise.below(2)]);
                call.arg("noise:{orders}").arg(&texts);
                call.arg(3).arg("SET").arg("noise:{orders}").arg("1");
            }
            // The sealed grant, and commands that are none.
            2 => {
                call.arg(2).arg(FENCE).arg("noise:{orders}");
                call.arg(good.resource.as_str()).arg(good.token.to_string());
                call.arg(good.holder.to_string());
                for _ in 0..1 + noise.below(4) {
                    call.arg(noise.text("3")).arg(noise.text("SET"));
                    call.arg(noise.text("noise:{orders}x")).arg(noise.bytes());
                }
                call.arg("end");
            }
            // Anything at all.
            _ => {
                call.arg(noise.below(4)).arg(noise.text(FENCE));
                for _ in 0..noise.below(6) {
                    call.arg(noise.bytes());
                }
            }
        }
        let reply: redis::RedisResult<Value> = call.query_async(&mut connection).await;
        if let Ok(Value::Array(reply)) = &reply {
            let kind: String = redis::from_redis_value(reply[0].clone()).unwrap();
            assert!(
                ["invalid", "stale", "unsealed", "collision", "none"].contains(&kind.as_str()),
                "{call:?}: {reply:?}"
            );
        } else {
            assert!(reply.is_err(), "{call:?}: {reply:?}");
        }
    }
    let keys: Vec<String> = cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(keys, [FENCE]);
    let fence = guard
        .fence(&mut connection, &good.resource)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((fence.token, fence.holder), (good.token, good.holder));
}
