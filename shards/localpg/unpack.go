package localpg

import (
	"archive/tar"
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ulikunitz/xz"
)

// Limits of what is unpacked; the real ones have 1,100 entries and 60 to 250 MB.
const (
	treeLimit    = 1 << 30
	entriesLimit = 20_000
)

// unpack lays the .txz inside a zip out as the folder tree.
func unpack(ctx context.Context, archive, tree string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer func() { _ = z.Close() }()
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, ".txz") {
			continue
		}
		txz, err := f.Open()
		if err != nil {
			return err
		}
		defer func() { _ = txz.Close() }()
		if err := os.Mkdir(tree, 0o755); err != nil { //nolint:gosec // Postgres's user reads it
			return err
		}
		return unpackTree(ctx, txz, tree)
	}
	return errors.New("the archive holds no .txz file")
}

// unpackTree writes through an os.Root, out of which no name and no link in the archive can lead.
func unpackTree(ctx context.Context, txz io.Reader, tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	plain, err := xz.NewReader(txz)
	if err != nil {
		return err
	}
	limited := &io.LimitedReader{R: plain, N: treeLimit}
	entries := tar.NewReader(limited)
	for range entriesLimit {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		h, err := entries.Next()
		if err == io.EOF && limited.N > 0 {
			return openFolders(tree)
		}
		if err != nil {
			return err
		}
		if err := unpackEntry(root, h, entries); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return fmt.Errorf("it holds more than %d entries", entriesLimit)
}

func unpackEntry(root *os.Root, h *tar.Header, content io.Reader) error {
	name := filepath.Clean(h.Name)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		mode := os.FileMode(0o644)
		if h.Mode&0o111 != 0 {
			mode = 0o755
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Chmod(mode), f.Close()) // whatever the umask says
	}
	return nil // nothing else is in there that a server needs
}

// openFolders lets everybody into the folders of a tree, whatever the umask said.
func openFolders(tree string) error {
	return filepath.WalkDir(tree, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755) //nolint:gosec // Postgres's user reads it
	})
}
