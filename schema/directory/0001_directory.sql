-- The directory: who lives where. Small, unsharded, read by every process into memory.

create table servers (
    name      text primary key,
    dsn       text not null,
    state     text not null default 'active' check (state in ('active', 'draining')),
    added_at  timestamptz not null default now()
);

create table shards (
    name           text primary key check (name ~ '^shard_[0-9]{4}$'),
    server         text not null references servers (name),
    epoch          bigint not null default 1,
    state          text not null default 'active' check (state in ('active', 'fenced')),
    partition_days int not null default 7 check (partition_days between 1 and 28)
);

-- 4,096 buckets for ever; an account's bucket is the first 12 bits of the SHA-256 of its decimal id.
create table buckets (
    bucket int primary key check (bucket between 0 and 4095),
    shard  text not null references shards (name)
);

create table accounts (
    id         bigint generated always as identity primary key,
    name       text not null check (length(name) between 1 and 200),
    bucket     int not null default 0 references buckets (bucket),
    created_at timestamptz not null default now()
);

-- An account that does not live where its bucket says.
create table overrides (
    account bigint primary key references accounts (id),
    shard   text not null references shards (name),
    since   timestamptz not null default now(),
    reason  text not null default ''
);

-- Keys are kept as SHA-256 only: they carry 190 random bits, so a slow hash would add nothing.
create table keys (
    id         bigint generated always as identity primary key,
    account    bigint not null references accounts (id),
    hash       bytea not null unique,
    hint       text not null,
    scope      text not null check (scope in ('full', 'send', 'read', 'test')),
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
create index on keys (account);

-- One counter a kind of change; every process polls them each second and is told by NOTIFY.
create table versions (
    name    text primary key,
    version bigint not null default 1
);
insert into versions (name) values ('map'), ('keys');

create function bump() returns trigger language plpgsql as $$
begin
    update versions set version = version + 1 where name = tg_argv[0];
    perform pg_notify('postrider', tg_argv[0]);
    return null;
end $$;

create trigger bump after insert or update or delete on servers for each statement execute function bump('map');
create trigger bump after insert or update or delete on shards for each statement execute function bump('map');
create trigger bump after insert or update or delete on buckets for each statement execute function bump('map');
create trigger bump after insert or update or delete on overrides for each statement execute function bump('map');
create trigger bump after update or delete on keys for each statement execute function bump('keys');

-- What the migration runner has done to each shard, so that it goes on where it stopped.
create table shard_migrations (
    shard       text not null references shards (name),
    version     int not null,
    state       text not null check (state in ('running', 'done', 'failed')),
    started_at  timestamptz not null default now(),
    finished_at timestamptz,
    error       text,
    primary key (shard, version)
);
