package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/shards"
)

// ping is users/ping.
func (a *API) ping(context.Context, *call) (any, error) { return "PONG!", nil }

// ping2 is users/ping2.
func (a *API) ping2(context.Context, *call) (any, error) {
	return map[string]string{"PING": "PONG!"}, nil
}

type window struct {
	Sent         int `json:"sent"`
	HardBounces  int `json:"hard_bounces"`
	SoftBounces  int `json:"soft_bounces"`
	Rejects      int `json:"rejects"`
	Complaints   int `json:"complaints"`
	Unsubs       int `json:"unsubs"`
	Opens        int `json:"opens"`
	UniqueOpens  int `json:"unique_opens"`
	Clicks       int `json:"clicks"`
	UniqueClicks int `json:"unique_clicks"`
}

type userInfo struct {
	Username    string            `json:"username"`
	CreatedAt   string            `json:"created_at"`
	PublicID    string            `json:"public_id"`
	Reputation  int               `json:"reputation"`
	HourlyQuota int               `json:"hourly_quota"`
	Backlog     int               `json:"backlog"`
	Stats       map[string]window `json:"stats"`
}

const usersInfoLimit = 4 * time.Second

// usersInfo is users/info; its windows are counted from the search rows of the last 90 days.
func (a *API) usersInfo(ctx context.Context, c *call) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, usersInfoLimit)
	defer cancel()
	accounts, err := a.cfg.Shards.Accounts(ctx, c.key.Account)
	if err != nil {
		return nil, sender.Unavailable(err)
	}
	counts, err := a.cfg.Store.Counts(ctx, c.key.Account, time.Now())
	if err != nil {
		return nil, storeError(err)
	}
	info := userInfo{Username: accounts[0].Name, CreatedAt: accounts[0].Created.UTC().Format(time.DateTime),
		PublicID: fmt.Sprintf("%016x", c.key.Account), Reputation: 100, Backlog: counts.Backlog, Stats: map[string]window{}}
	for i, name := range []string{"today", "last_7_days", "last_30_days", "last_60_days", "last_90_days"} {
		n := counts.Windows[i]
		info.Stats[name] = window{Sent: n.Sent, HardBounces: n.Bounced, SoftBounces: n.SoftBounced, Rejects: n.Rejected, Complaints: n.Spam,
			Unsubs: n.Unsubscribed, Opens: n.Opens, Clicks: n.Clicks}
	}
	info.Stats["all_time"] = info.Stats["last_90_days"]
	return info, nil
}

func unavailable(err error) bool { return errors.Is(err, shards.ErrUnavailable) }
