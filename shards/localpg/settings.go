package localpg

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// DefaultSettings are for a server of this system on a machine with so many bytes of memory, that
// it shares with everything else. Role "shards" is a server that holds shards and can move them by
// logical replication; any other, such as "directory", a small one. Change the map as you like.
//
// Start replaces lz4 by pglz where the build lacks it, and sets max_wal_size by the disk unless
// the map has it.
func DefaultSettings(memoryBytes uint64, role string) map[string]string {
	settings := map[string]string{
		"fsync":                               "on",
		"synchronous_commit":                  "on",
		"wal_compression":                     "lz4",
		"default_toast_compression":           "lz4",
		"checkpoint_timeout":                  "15min",
		"autovacuum":                          "on",
		"huge_pages":                          "off", // a failed or a greedy reservation helps nobody on a shared machine
		"jit":                                 "off", // short queries, and 30 MB a backend
		"log_lock_waits":                      "on",
		"idle_in_transaction_session_timeout": "10s", // the time of a client that died with locks in its hands
		"timezone":                            "UTC",
		"log_timezone":                        "UTC",
	}
	special := map[string]string{
		"wal_level":                       "replica",
		"max_logical_replication_workers": "0",
		"max_connections":                 "50",
		"shared_buffers":                  "16MB",
		"min_wal_size":                    "32MB",
		"max_wal_size":                    "256MB",
	}
	if role == "shards" {
		special = map[string]string{
			"wal_level":                         "logical",
			"max_wal_senders":                   "20",
			"max_replication_slots":             "20",
			"max_logical_replication_workers":   "12",
			"max_sync_workers_per_subscription": "4",
			"max_worker_processes":              "24",
			"max_slot_wal_keep_size":            "4GB", // a forgotten slot must not fill the disk
			"max_connections":                   "200",
			"shared_buffers":                    megabytes(min(max(memoryBytes/64, 64*mib), 2*gib)),
			"min_wal_size":                      "80MB",
		}
	}
	maps.Copy(settings, special)
	return settings
}

func megabytes(n uint64) string { return strconv.FormatUint(n/mib, 10) + "MB" }

// applySettings writes the settings file and lets the binaries read it before a server does.
func (s *Server) applySettings(ctx context.Context) error {
	settings := maps.Clone(s.cfg.Settings)
	if settings == nil {
		settings = map[string]string{}
	}
	if settings["max_wal_size"] == "" {
		settings["max_wal_size"] = megabytes(min(max(diskBytes(filepath.Dir(s.cfg.Dir))/64, 2*gib), 8*gib))
	}
	err := s.trySettings(ctx, settings)
	if err != nil && strings.Contains(err.Error(), `"lz4"`) {
		for _, name := range []string{"wal_compression", "default_toast_compression"} {
			if settings[name] == "lz4" {
				settings[name] = "pglz"
			}
		}
		err = s.trySettings(ctx, settings)
	}
	return err
}

func (s *Server) trySettings(ctx context.Context, settings map[string]string) error {
	maps.Copy(settings, map[string]string{ // not for the caller to choose
		"cluster_name":            s.cfg.Name,
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"port":                    strconv.Itoa(s.port),
		"logging_collector":       "off",
		"log_destination":         "stderr",
	})
	text, err := render(settings)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(s.cfg.Dir, ourSettings), text, s.user); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := s.user.run(ctx, filepath.Join(s.cfg.Binaries.Dir, "postgres"), "-D", s.cfg.Dir, "-C", "port")
	if err != nil {
		return fmt.Errorf("settings: %w", explain(out, err))
	}
	return nil
}

var (
	settingName  = regexp.MustCompile(`^[a-z_]+(\.[a-z0-9_]+)?$`)
	settingValue = strings.NewReplacer(`\`, `\\`, `'`, `''`)
	portSetting  = regexp.MustCompile(`(?m)^port = '(\d+)'$`)
)

func render(settings map[string]string) (string, error) {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		if !settingName.MatchString(name) || strings.ContainsAny(value, "\n\r\x00") {
			return "", fmt.Errorf("%q = %q cannot be a Postgres setting", name, value)
		}
		fmt.Fprintf(&b, "%s = '%s'\n", name, settingValue.Replace(value))
	}
	return b.String(), nil
}

// rememberedPort is the one of the last start; 0 if there was none.
func rememberedPort(dir string) int {
	text, err := readHead(filepath.Join(dir, ourSettings), 64<<10)
	if err != nil {
		return 0
	}
	match := portSetting.FindStringSubmatch(text)
	if match == nil {
		return 0
	}
	port, err := strconv.Atoi(match[1])
	if err != nil {
		return 0
	}
	return port
}

// freePort prefers ports below those that systems give to outgoing connections (from 32768 on
// Linux, 49152 elsewhere): among those, a client that keeps calling while the server is down will
// one day be given the server's own port and talk to itself.
func freePort() int {
	for range 100 {
		if port := 20000 + rand.IntN(10000); portFree(port) { //nolint:gosec // no secret
			return port
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func portFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// diskBytes is the size of the file system of a folder; 0 if unknown.
func diskBytes(dir string) uint64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0
	}
	return st.Blocks * uint64(st.Bsize) //nolint:gosec // a block size is positive
}
