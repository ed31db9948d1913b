-- What operators have stopped: work of a kind in one shard, for one account, or, with neither, everywhere.
create table pauses (
    kind    text not null check (kind ~ '^[a-z0-9_-]{1,64}$'),
    shard   text references shards (name),
    account bigint references accounts (id),
    since   timestamptz not null default now(),
    why     text not null default '' check (length(why) <= 200),
    check (shard is null or account is null)
);
create unique index on pauses (kind, coalesce(shard, ''), coalesce(account, 0));

create trigger bump after insert or update or delete on pauses for each statement execute function bump('map');
