-- Once a physical server: which processes are alive, so that the claims of a dead one can be freed.
create table instances (
    id         uuid primary key,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now(),
    -- no message born claimed by this instance and still in its hands has a smaller id
    floor      uuid not null
);
