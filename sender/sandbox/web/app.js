"use strict";

// Everything that comes out of a mail is set with textContent, never as HTML; the HTML of a mail is shown in
// a frame that may run nothing.

const step = 50;
const refresh = 2000; // milliseconds
const $ = id => document.getElementById(id);
const state = { limit: step, open: null, tab: "html", mail: null, drawn: "" };

const element = (name, text, className) => {
  const e = document.createElement(name);
  e.textContent = text ?? "";
  if (className) e.className = className;
  return e;
};

const ask = async (path, options) => {
  const answer = await fetch(path, { signal: AbortSignal.timeout(10000), ...options });
  if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
  return answer;
};

const people = list => list.map(a => a.Name ? `${a.Name} <${a.Address}>` : a.Address).join(", ");
const size = n => n < 1024 ? `${n} B` : n < 1 << 20 ? `${(n / 1024).toFixed(1)} KB` : `${(n / (1 << 20)).toFixed(1)} MB`;
const clock = iso => {
  const at = new Date(iso);
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleDateString();
};

const listPath = () => {
  const query = $("search").value.trim();
  return query
    ? `/api/v1/search?limit=${state.limit}&query=${encodeURIComponent(query)}`
    : `/api/v1/messages?limit=${state.limit}`;
};

const row = m => {
  const button = element("button");
  button.type = "button";
  button.dataset.id = m.ID;
  if (m.ID === state.open) button.setAttribute("aria-current", "true");
  const subject = m.Subject || "(no subject)";
  button.append(
    element("span", subject, m.Read ? "" : "unread"),
    element("span", clock(m.Created), "when"),
    element("span", `to ${people([...m.To, ...m.Cc, ...m.Bcc])}`, "snippet"),
    element("span", `${m.Attachments ? `[${m.Attachments} attached] ` : ""}${m.Snippet}`, "snippet"),
  );
  const item = element("li");
  item.append(button);
  return item;
};

const draw = page => {
  $("count").textContent = page.total ? `${page.messages_count} of ${page.total}, ${page.unread} unread` : "";
  $("more").hidden = page.messages_count <= page.messages.length;
  $("empty").hidden = page.messages.length > 0;
  $("empty").textContent = page.total
    ? "Nothing matches this search."
    : "No mail yet. What is sent appears here within two seconds.";
  const drawn = JSON.stringify([page.messages, state.open]);
  if (drawn === state.drawn) return; // keeps focus and scroll position while nothing is new
  state.drawn = drawn;
  const focused = document.activeElement?.dataset?.id;
  $("mails").replaceChildren(...page.messages.map(row));
  if (focused) document.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
};

let round = 0; // of overlapping loads only the last one is drawn

const load = async () => {
  const mine = ++round;
  $("clear").textContent = $("search").value.trim() ? "Delete found" : "Delete all";
  try {
    const page = await (await ask(listPath())).json();
    if (mine !== round) return;
    draw(page);
    $("problem").hidden = true;
  } catch (error) {
    if (mine !== round) return;
    $("problem").textContent = `The inbox cannot be read: ${error.message}`;
    $("problem").hidden = false;
  }
};

const facts = m => {
  const rows = { From: people([m.From]), To: people(m.To), Cc: people(m.Cc), Bcc: people(m.Bcc),
    "Reply-To": people(m.ReplyTo), Date: new Date(m.Date).toLocaleString(), Size: size(m.Size) };
  $("facts").replaceChildren(...Object.entries(rows).filter(([, v]) => v)
    .flatMap(([k, v]) => [element("dt", k), element("dd", v)]));
};

const files = m => {
  $("files").replaceChildren(...[...m.Attachments, ...m.Inline].map(f => {
    const link = element("a", `${f.FileName || f.ContentType} · ${size(f.Size)}`);
    link.href = `/api/v1/message/${m.ID}/part/${f.PartID}`;
    link.download = f.FileName;
    const item = element("li");
    item.append(link);
    return item;
  }));
};

const tab = async name => {
  const m = state.mail;
  state.tab = name;
  for (const b of $("tabs").querySelectorAll("[role=tab]")) b.setAttribute("aria-selected", b.dataset.tab === name);
  $("html").hidden = name !== "html";
  $("headers").hidden = name !== "headers";
  $("body").hidden = name !== "text" && name !== "source";
  if (name === "html") $("html").src = `/view/${m.ID}`;
  if (name === "text") $("body").textContent = m.Text || "(no text part)";
  try {
    if (name === "source") {
      $("body").textContent = "";
      const source = await (await ask(`/api/v1/message/${m.ID}/raw`)).text();
      if (state.mail === m && state.tab === name) $("body").textContent = source;
    }
    if (name === "headers") {
      const all = await (await ask(`/api/v1/message/${m.ID}/headers`)).json();
      if (state.mail !== m) return;
      $("headers").replaceChildren(...Object.entries(all).flatMap(([k, values]) => values.map(v => {
        const line = element("tr");
        line.append(element("th", k), element("td", v));
        return line;
      })));
    }
  } catch (error) {
    $("body").hidden = false;
    $("body").textContent = error.message;
  }
};

const show = async id => {
  state.open = id;
  if (!id) {
    state.mail = null;
    $("mail").hidden = true;
    return load();
  }
  try {
    const m = await (await ask(`/api/v1/message/${encodeURIComponent(id)}`)).json();
    if (state.open !== id) return;
    state.mail = m;
    $("subject").textContent = m.Subject || "(no subject)";
    facts(m);
    files(m);
    $("download").href = `/api/v1/message/${m.ID}/raw?dl=1`;
    $("mail").hidden = false;
    await tab(m.HTML ? "html" : "text");
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
    $("mail").hidden = true;
  }
  return load();
};

const forget = async () => {
  const query = $("search").value.trim();
  if (!confirm(query ? "Delete the mails that match the search?" : "Delete all mails?")) return;
  try {
    await ask(query ? `/api/v1/search?query=${encodeURIComponent(query)}` : "/api/v1/messages", { method: "DELETE" });
    location.hash = "";
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
  load();
};

$("mails").addEventListener("click", e => {
  const id = e.target.closest("button")?.dataset.id;
  if (id) location.hash = id;
});
$("tabs").addEventListener("click", e => { if (e.target.dataset.tab) tab(e.target.dataset.tab); });
$("search").addEventListener("input", () => { state.limit = step; load(); });
$("more").addEventListener("click", () => { state.limit += step; load(); });
$("back").addEventListener("click", () => { location.hash = ""; });
$("clear").addEventListener("click", forget);
addEventListener("hashchange", () => show(location.hash.slice(1)));

show(location.hash.slice(1));
const loop = () => setTimeout(async () => { if (!document.hidden) await load(); loop(); }, refresh);
loop();
