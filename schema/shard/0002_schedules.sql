-- Scheduled sends. send_at is the customer's and stays; next_attempt_at is ours. The index's condition must not
-- name the state: a column in a condition keeps every update of it from being a cheap one (HOT).
alter table messages add column send_at timestamptz;
create index messages_scheduled on messages (account_id, send_at, id) where send_at is not null;
