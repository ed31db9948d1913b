// Package schema holds every persistent shape of Postrider as SQL: the directory, what each
// physical server has once, and a shard. Files are applied in the order of their names and
// never changed after a release; a new version is a new file.
package schema

import "embed"

// Files holds directory/*.sql (the unsharded database), server/*.sql (once a physical server,
// in the schema "postrider") and shard/*.sql (once a shard, with its schema as search_path).
//
//go:embed directory/*.sql server/*.sql shard/*.sql
var Files embed.FS
