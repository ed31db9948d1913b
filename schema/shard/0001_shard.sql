-- One logical shard. Names are unqualified: the runner sets search_path to the shard's schema.
-- Every key begins with account_id, so that one account can be moved by a row filter. There are no
-- identity columns: they do not survive a move. The comment on a partitioned table is the storage
-- option of its partitions.

-- Raised by a trigger that exists only while a shard is fenced: a router with an old map is stopped here.
create function fenced() returns trigger language plpgsql as $$
begin
    raise exception 'shard % is fenced', tg_table_schema using errcode = 'SM001';
end $$;

-- Content once, however many recipients. Bodies up to 8 KB stay inline: TOAST costs a second insert.
create table submissions (
    account_id bigint not null,
    id         uuid not null,
    body       bytea not null,
    primary key (account_id, id)
) partition by range (id);
alter table submissions alter body set storage main;
comment on table submissions is 'toast_tuple_target=8160';

-- One row a message sent. claimed_by is the instance that has it in hand.
create table messages (
    account_id      bigint not null,
    id              uuid not null,
    submission_id   uuid not null,
    state           smallint not null,
    ver             int not null default 1,
    seq             int not null default 0,
    attempt         smallint not null default 0,
    kind            smallint not null default 0,
    claimed_by      uuid,
    next_attempt_at timestamptz,
    expires_at      timestamptz not null,
    email           text not null,
    name            text not null default '',
    shown           text, -- address, tab, name: whom the To header names instead
    reason          text,
    reply           text,
    primary key (account_id, id)
) partition by range (id);
comment on table messages is 'fillfactor=80';
-- What is due: rows in nobody's hands, and rows claimed again after their birth.
create index messages_due on messages (next_attempt_at) where next_attempt_at is not null;
-- Finds what a dead instance was born with, by its floor, without a cost on insert.
create index messages_brin on messages using brin (id) with (pages_per_range = 16, autosummarize = on);

create table search (
    account_id bigint not null,
    id         uuid not null,
    ver        int not null default 1,
    state      smallint not null,
    email      text not null,
    sender     text not null,
    subject    text not null,
    tags       text[],
    metadata   jsonb,
    subaccount text,
    opens      int not null default 0,
    clicks     int not null default 0,
    primary key (account_id, id)
) partition by range (id);
comment on table search is 'fillfactor=80';

create table events (
    account_id bigint not null,
    message_id uuid not null,
    seq        int not null,
    kind       smallint not null,
    attempt    smallint not null,
    at         timestamptz not null,
    data       text not null,
    primary key (account_id, message_id, seq)
) partition by range (message_id);

-- The answer to a send with an Idempotency-Key, for 24 hours. The id is the submission's.
create table idempotency (
    account_id bigint not null,
    key        text not null,
    id         uuid not null,
    digest     bytea not null,
    answer     bytea not null,
    primary key (account_id, key, id)
) partition by range (id);

-- An account's do-not-send list.
create table rejects (
    account_id    bigint not null,
    email         text not null,
    reason        text not null,
    detail        text not null default '',
    created_at    timestamptz not null default now(),
    last_event_at timestamptz not null default now(),
    expires_at    timestamptz,
    primary key (account_id, email)
);

-- What is still to be told outside: one row a transaction, listing message ids. Drained, never kept.
create table event_outbox (
    id  uuid primary key,
    ids uuid[] not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
