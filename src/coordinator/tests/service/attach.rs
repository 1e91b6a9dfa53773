//! Streams: one is a session.

#[path = "attach/bounds.rs"]
mod bounds;
#[path = "attach/copies.rs"]
mod copies;
#[path = "attach/lost_replies.rs"]
mod lost_replies;
#[path = "attach/news.rs"]
mod news;
#[path = "attach/opening.rs"]
mod opening;
#[path = "attach/order.rs"]
mod order;
#[path = "attach/own.rs"]
mod own;
#[path = "attach/support.rs"]
pub(crate) mod support;
#[path = "attach/waiting.rs"]
mod waiting;
