package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testSDK points the official SDK for Node at us by its base URL, and changes nothing else.
func testSDK(t *testing.T, d *dev) {
	missing := t.Skipf
	if os.Getenv("CI") == "true" {
		missing = t.Fatalf
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			missing("%s is not on this machine: install Node.js to test with the official SDK", program)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("sdk")); err != nil {
		t.Fatal(err)
	}
	if out, err := program(t, dir, nil, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--prefer-offline"); err != nil {
		missing("npm could not install the SDK (is there a network?): %v\n%s", err, out)
	}
	account := d.fresh(t)
	for _, base := range []string{"/api/1.3", "/api/1.0", "/api/1.4/"} {
		t.Run(base, func(t *testing.T) {
			to := unique(t, "sdk")
			out, err := program(t, dir, []string{"KEY=" + account.Key, "BASE=" + d.API + base, "TO=" + to}, "node", "index.js")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			checkSDK(t, account, out, to)
		})
	}
}

// program runs one, for at most three minutes.
func program(t *testing.T, dir string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	return strings.ReplaceAll(string(out), filepath.Dir(dir), "…"), err
}

func checkSDK(t *testing.T, d *dev, out, to string) {
	t.Helper()
	var got struct {
		Ping          string
		Ping2, AsJSON struct{ PING string }
		Sent          []struct {
			Email, Status string
			ID            string `json:"_id"`
		}
		Info    struct{ State, Email, Subject string }
		Content struct {
			HTML        string
			Attachments []struct{ Name, Content string }
		}
		Found           []object
		User            object
		Unknown, BadKey struct {
			Status int
			Data   struct {
				Status, Name, Message string
				Code                  int
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got.Ping != "PONG!" || got.Ping2.PING != "PONG!" || got.AsJSON.PING != "PONG!" {
		t.Errorf("pings: %q %q %q", got.Ping, got.Ping2.PING, got.AsJSON.PING)
	}
	if len(got.Sent) != 1 || got.Sent[0].Email != to || got.Info.State != "sent" || got.Info.Email != to || got.Content.HTML != "<p>Grüße</p>" || len(got.Content.Attachments) != 1 || len(got.Found) == 0 || got.User["username"] == nil {
		t.Fatalf("%s", out)
	}
	if got.Unknown.Status != 404 || got.Unknown.Data.Name != "Unknown_Message" || got.Unknown.Data.Code != 11 || got.BadKey.Status != 401 || got.BadKey.Data.Name != "Invalid_Key" {
		t.Errorf("errors: %+v %+v", got.Unknown, got.BadKey)
	}
	p := readMail(t, d.waitMail(t, got.Sent[0].ID))
	if p.fromName != "Sdk Ünï" || lines(p.text) != "Grüße" || len(p.files) != 1 || p.files[0].name != "hällo.txt" || string(p.files[0].content) != "attached ✓" {
		t.Errorf("the mail that arrived: %+v", p)
	}
}
