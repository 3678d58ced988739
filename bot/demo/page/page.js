// The page of the local workspace: it shows what the server tells and sends what people do. State lives in `here`; everything is
// drawn from it. Texts go in as text nodes (see blocks.js).

import { block, el, emoji, formatDate, mrkdwn } from "./blocks.js";

const $ = (id) => document.getElementById(id);
const here = {
  me: null, bot: null, users: new Map(), groups: new Map(), channels: new Map(), messages: new Map(), views: new Map(),
  commands: [], shortcuts: [], buttons: [], channel: null, thread: null, tab: "messages", read: new Map(), connected: false, homeTab: true, drafts: new Map(),
};
let socket = null, serial = 0;
const waiting = new Map();

/** Tells the server what a person did; resolves with its answer. */
function act(what, args = {}) {
  const id = ++serial;
  return new Promise((resolve) => {
    if (socket?.readyState !== WebSocket.OPEN) { note("The workspace cannot be reached; nothing was sent."); resolve(null); return; }
    waiting.set(id, resolve);
    socket.send(JSON.stringify({ do: what, id, user: here.me, ...args }));
  });
}

function note(text) {
  const shown = el("div.note", {}, text);
  $("notes").append(shown);
  setTimeout(() => shown.remove(), 6000);
}

// What blocks.js needs to know of the workspace.
const world = {
  get me() { return here.me; },
  privateFiles: new Set(),
  userName: (id) => here.users.get(id)?.name,
  groupName: (id) => here.groups.get(id)?.handle,
  channelName: (id) => here.channels.get(id)?.name,
  users: () => [...here.users.values()].filter((user) => !user.is_bot),
  channels: () => [...here.channels.values()].filter((channel) => !channel.person),
  open: (id) => openChannel(id),
  jump: (channel, ts, root) => jump(channel, ts, root),
  confirm: (texts) => ask(texts),
  menu: attachMenu,
};

const within = (own) => Object.create(world, Object.getOwnPropertyDescriptors(own));
const suggest = async (at, element, text) => (await act("suggest", { ...at, action_id: element.action_id, text }))?.result ?? [];

/** Slack's "Are you sure?" */
function ask(texts) {
  return new Promise((resolve) => {
    const box = $("confirm");
    const done = (answer) => { box.close(); resolve(answer); };
    box.replaceChildren(
      el("h2", { id: "confirm-title" }, texts.title.text), mrkdwn(texts.text.text, world),
      el("div.row", {}, el("button.button", { type: "button", on: { click: () => done(false) } }, texts.deny.text),
        el(`button.button.${texts.style ?? "primary"}`, { type: "button", autofocus: true, on: { click: () => done(true) } }, texts.confirm.text)));
    box.oncancel = () => resolve(false);
    box.showModal();
  });
}

/** A button that opens a menu of [label, action], usable by keyboard. */
function attachMenu(button, menu, items) {
  const close = () => { menu.hidden = true; button.setAttribute("aria-expanded", "false"); document.removeEventListener("click", outside, true); };
  const outside = (event) => { if (!menu.contains(event.target) && !button.contains(event.target)) close(); };
  button.addEventListener("click", () => {
    if (!menu.hidden) return close();
    menu.replaceChildren(...items.map(([label, action]) => el("button", { type: "button", role: "menuitem", on: { click: () => { close(); button.focus(); action(); } } }, label)));
    menu.hidden = false;
    menu.classList.toggle("up", button.getBoundingClientRect().bottom > innerHeight * 0.7);
    button.setAttribute("aria-expanded", "true");
    menu.firstElementChild?.focus();
    document.addEventListener("click", outside, true);
  });
  menu.addEventListener("keydown", (event) => {
    const all = [...menu.children], at = all.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); all[(at + step + all.length) % all.length].focus(); }
    if (event.key === "Escape") { event.stopPropagation(); close(); button.focus(); }
  });
}

// Messages.

const key = (message) => `${message.channel} ${message.ts}`;
const visible = (message) => !message.deleted && (!message.only || message.only === here.me);
const isReply = (message) => message.thread_ts && message.thread_ts !== message.ts;
const inChannel = (channel) => [...here.messages.values()].filter((one) => one.channel === channel && visible(one) && (!isReply(one) || one.broadcast));
const inThread = (channel, ts) => [...here.messages.values()].filter((one) => one.channel === channel && visible(one) && (one.ts === ts || one.thread_ts === ts));
const byTime = (left, right) => Number(left.ts) - Number(right.ts);
const pingsMe = (message) => message.user !== here.me && message.pings.some((one) => ["channel", "here", "everyone", here.me].includes(one) || (one[0] === "S" && here.groups.has(one)));
const clock = (ts) => new Date(Number(ts) * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

function avatar(user) {
  const name = user?.name ?? "?";
  const shade = [...name].reduce((sum, sign) => sum + sign.codePointAt(0), 0) % 6;
  if (user?.id === here.bot) return el("img.avatar", { src: "/page/icon.svg", alt: "" });
  return el(`span.avatar.shade${shade}`, { aria: { hidden: true } }, name[0].toUpperCase());
}

function drawMessage(message, { threaded = false, joined = false } = {}) {
  const user = here.users.get(message.user) ?? { name: message.user };
  const pinged = message.pings.some((one) => ["channel", "here", "everyone", here.me].includes(one) || here.groups.has(one));
  const body = el("div.body");
  if (message.blocks?.length) {
    const click = (element, choice) => act("click", { channel: message.channel, ts: message.ts, action_id: element.action_id, choose: choice });
    const at = { channel: message.channel, ts: message.ts };
    const scope = within({ privateFiles: new Set(message.private_files), suggest: (element, text) => suggest(at, element, text) });
    body.append(...message.blocks.map((one) => block(one, scope, click)));
  } else if (message.text) body.append(mrkdwn(message.text, world));
  for (const attachment of message.attachments ?? []) {
    body.append(el("div.attachment", {}, attachment.title ? el("strong", {}, attachment.title) : null, mrkdwn(attachment.text ?? attachment.fallback ?? "", world),
      (attachment.blocks ?? []).map((one) => block(one, world, () => {}))));
  }
  for (const file of message.files) {
    const address = new URL(file.url_private, location.href).pathname;
    body.append(file.picture
      ? el("figure", {}, el("figcaption", {}, file.title), el("a", { href: address, target: "_blank", rel: "noopener" }, el("img", { src: address, alt: file.alt_txt || file.title })), el("small.alt", {}, file.alt_txt))
      : el("a.file", { href: address, target: "_blank", rel: "noopener" }, `📄 ${file.title}`));
  }
  if (message.edited) body.append(el("small.edited", {}, "(edited)"));
  const reactions = (message.reactions ?? []).map((one) =>
    el("button.reaction", { type: "button", aria: { pressed: one.users.includes(here.me), label: `${one.name}, ${one.count}` }, on: { click: () => act("react", { channel: message.channel, ts: message.ts, name: one.name }) } }, `${emoji(one.name)} ${one.count}`));
  if (reactions.length) body.append(el("div.reactions", {}, reactions));
  if (!threaded && message.replies) {
    const faces = message.repliers.slice(0, 3).map((id) => avatar(here.users.get(id)));
    body.append(el("button.replies", { type: "button", on: { click: () => openThread(message.channel, message.ts) } }, faces,
      el("strong", {}, `${message.replies} ${message.replies === 1 ? "reply" : "replies"}`), el("span", {}, `Last reply ${clock(message.last_reply)}`)));
  }
  if (message.only) body.append(el("button.dismiss", { type: "button", on: { click: () => act("dismiss", { channel: message.channel, ts: message.ts }) } }, "Dismiss"));
  const root = message.thread_ts ?? message.ts;
  const tools = el("div.tools", { role: "toolbar", aria: { label: "Message actions" } });
  if (!message.only) {
    for (const name of ["eyes", "white_check_mark"]) {
      tools.append(el("button.icon", { type: "button", title: `React with ${name}`, aria: { label: `React with ${name}` }, on: { click: () => act("react", { channel: message.channel, ts: message.ts, name }) } }, emoji(name)));
    }
    if (!threaded) tools.append(el("button.icon", { type: "button", title: "Reply in thread", aria: { label: "Reply in thread" }, on: { click: () => openThread(message.channel, root) } }, "💬"));
    const onMessages = here.shortcuts.filter((one) => one.type === "message");
    if (onMessages.length) {
      const menu = el("div.menu", { role: "menu", hidden: true });
      const button = el("button.icon", { type: "button", title: "More actions", aria: { label: "More message actions", haspopup: "menu", expanded: "false" } }, "⋮");
      attachMenu(button, menu, onMessages.map((one) => [one.name, () => act("shortcut", { channel: message.channel, ts: message.ts, callback_id: one.callback_id })]));
      tools.append(el("span.overflow", {}, button, menu));
    }
  }
  const time = el("time", { dateTime: new Date(Number(message.ts) * 1000).toISOString(), title: formatDate(Number(message.ts), "{date_long} {time_secs}") }, clock(message.ts));
  const top = joined ? null : el("header", {}, el("strong", {}, user.name), user.is_bot ? el("span.badge", {}, "APP") : null, time,
    message.broadcast && !threaded ? el("button.replied", { type: "button", on: { click: () => openThread(message.channel, root) } }, "replied to a thread") : null);
  return el(`article.message${message.only ? ".ephemeral" : ""}${pinged ? ".pinged" : ""}${joined ? ".joined" : ""}`, { data: { ts: message.ts }, aria: { label: `${user.name}, ${clock(message.ts)}` } },
    message.only ? el("p.only", {}, "◉ Only visible to you") : null, joined ? el("span.gutter", {}, time) : avatar(user), el("div.column", {}, top, body), tools);
}

/** Puts `wanted`, a list of [key, print, make], into a box; what looks as before stays untouched, with its focus and open menus. */
function arrange(box, wanted) {
  const old = new Map([...box.children].map((node) => [node.key, node]));
  const focused = box.contains(document.activeElement) ? document.activeElement : null;
  const focus = focused && [focused.closest("[data-key]")?.dataset.key, focused.dataset.action ?? focused.dataset.channel];
  const nodes = wanted.map(([key, print, make]) => {
    const before = old.get(key);
    if (before?.print === print) return before;
    const node = make();
    Object.assign(node, { key, print });
    node.dataset.key = key;
    if (before) node.classList.add("updated");
    return node;
  });
  const staying = new Set(nodes);
  for (const node of [...box.children]) if (!staying.has(node)) node.remove();
  let at = box.firstChild;
  for (const node of nodes) {
    if (node === at) at = at.nextSibling;
    else box.insertBefore(node, at);
  }
  if (focused && !box.contains(focused)) { // it was drawn anew: the same control, else the first of its message
    const again = nodes.find((node) => node.key === focus[0]);
    const controls = again ? [again, ...again.querySelectorAll("*")].filter((one) => one.matches("button, select, input, textarea, a")) : [];
    (controls.find((one) => (one.dataset.action ?? one.dataset.channel) === focus[1]) ?? controls[0])?.focus({ preventScroll: true });
  }
}

/** Draws a list of messages into `box` and keeps the reader at the end when they were there. */
function drawList(box, messages, options) {
  const atEnd = box.atEnd || box.dataset.of !== options.of;
  if (box.dataset.of !== options.of) box.replaceChildren();
  box.dataset.of = options.of;
  const wanted = [];
  const divider = (text) => [`day ${text}`, text, () => el("p.day", {}, el("span", {}, text))];
  let day = "", last = null;
  for (const message of messages) {
    const date = formatDate(Number(message.ts), "{day_divider_pretty}");
    if (date !== day) { wanted.push(divider(date[0].toUpperCase() + date.slice(1))); last = null; }
    day = date;
    const joined = Boolean(last && last.user === message.user && !message.only && !last.only && !message.broadcast && message.ts - last.ts < 300 && !options.threaded && !message.blocks?.length);
    wanted.push([message.ts, JSON.stringify([message, joined, here.me, here.users.size, date]), () => drawMessage(message, { threaded: options.threaded, joined })]);
    last = message;
    if (options.threaded && message.ts === options.root) wanted.push(divider(`${messages.length - 1} ${messages.length === 2 ? "reply" : "replies"}`));
  }
  arrange(box, wanted);
  if (atEnd) toEnd(box);
}

/** Shows the end of a list, and keeps to it while the list grows, until the reader scrolls up. */
function toEnd(box) {
  box.atEnd = true;
  box.scrollTop = box.scrollHeight;
}

for (const box of [$("messages"), $("replies")]) {
  let top = 0;
  box.addEventListener("scroll", () => { // a list that grew under the reader is no reader who went up
    if (box.scrollHeight - box.scrollTop - box.clientHeight < 80) box.atEnd = true;
    else if (box.scrollTop < top) box.atEnd = false;
    top = box.scrollTop;
  });
  box.addEventListener("load", () => { if (box.atEnd) toEnd(box); }, true); // a picture grew the list
  new ResizeObserver(() => { if (box.atEnd) toEnd(box); }).observe(box);
}

// Places.

const directOf = (user) => [...here.channels.values()].find((channel) => channel.person === user);

function drawSide() {
  const place = (channel, sign, name) => {
    const fresh = inChannel(channel.id).filter((one) => one.user !== here.me && one.ts > (here.read.get(channel.id) ?? "0"));
    const pings = fresh.filter((one) => pingsMe(one) || channel.person).length;
    const current = channel.id === here.channel;
    return [channel.id, JSON.stringify([name, fresh.length > 0, pings, current, channel.archived]), () => el("li", {},
      el(`button.place${fresh.length && !current ? ".fresh" : ""}`, { type: "button", data: { channel: channel.id }, aria: current ? { current: "page" } : {}, on: { click: () => openChannel(channel.id) } },
        el("span.sign", {}, sign), el("span", {}, name), channel.archived ? el("small", {}, "archived") : null, pings && !current ? el("span.count", { aria: { label: `${pings} mentions` } }, String(pings)) : null))];
  };
  const channels = [...here.channels.values()].filter((channel) => !channel.person && channel.members.includes(here.me));
  const direct = directOf(here.me);
  arrange($("channels"), channels.map((channel) => place(channel, channel.private ? "🔒" : "#", channel.name)));
  arrange($("directs"), direct ? [place(direct, el("img.small", { src: "/page/icon.svg", alt: "" }), here.users.get(here.bot)?.name ?? "app")] : []);
  $("cluster").hidden = !here.buttons.length;
  arrange($("cluster-buttons"), here.buttons.map((label, number) => [label, label, () => el("button.button", { type: "button", on: { click: async ({ target }) => {
    target.disabled = true;
    await act("button", { number });
    target.disabled = false;
  } } }, label)]));
  $("app").textContent = here.connected ? "● meshwhy is connected" : "○ meshwhy is not connected";
  $("app").classList.toggle("off", !here.connected);
}

function drawMain() {
  const channel = here.channels.get(here.channel);
  if (!channel) return;
  const direct = Boolean(channel.person);
  $("title").textContent = direct ? here.users.get(here.bot).name : `#${channel.name}`;
  $("topic").textContent = direct ? "App" : channel.archived ? "This channel has been archived." : `${channel.members.length} members${channel.members.includes(here.bot) ? "" : " · meshwhy is not in this channel"}`;
  const tabs = direct && here.homeTab;
  $("tabs").hidden = !tabs;
  if (tabs) {
    arrange($("tabs"), [["home", "Home"], ["messages", "Messages"]].map(([name, label]) => [name, String(here.tab === name), () =>
      el("button", { type: "button", role: "tab", data: { action: name }, aria: { selected: here.tab === name }, on: { click: () => { here.tab = name; if (name === "home") act("home"); draw(); } } }, label)]));
  }
  const home = tabs && here.tab === "home";
  $("home").hidden = !home;
  $("messages").hidden = home;
  $("composer-place").hidden = home || channel.archived;
  if (home) drawHome();
  drawList($("messages"), inChannel(here.channel).sort(byTime), { of: `${here.me} ${here.channel}` });
  if (!home) here.read.set(here.channel, inChannel(here.channel).map((one) => one.ts).sort().at(-1) ?? "0");
  document.title = `${$("title").textContent} · Local workspace`;
}

function drawHome() {
  const view = here.views.get(here.me)?.home;
  if (!view) { $("home").print = null; $("home").replaceChildren(el("p.empty", {}, "This app has not shown anything here yet.")); return; }
  const click = (element, choice) => act("click", { view: view.id, action_id: element.action_id, choose: choice });
  const scope = within({ suggest: (element, text) => suggest({ view: view.id }, element, text) });
  if ($("home").print === view.hash + here.me) return;
  $("home").print = view.hash + here.me;
  $("home").replaceChildren(...view.blocks.map((one) => block(one, scope, click)));
}

function drawThread() {
  const open = here.thread;
  $("thread").hidden = !open;
  document.body.classList.toggle("threaded", Boolean(open));
  if (!open) return;
  const channel = here.channels.get(open.channel);
  $("thread-where").textContent = channel.person ? here.users.get(here.bot).name : `#${channel.name}`;
  drawList($("replies"), inThread(open.channel, open.ts).sort(byTime), { of: `${here.me} ${open.channel} ${open.ts}`, threaded: true, root: open.ts });
}

let drawn = null;
function drawNow() {
  drawn = null;
  drawMain();
  drawThread();
  drawSide();
}

/** Draws everything at the next frame. */
function draw() {
  drawn ??= requestAnimationFrame(drawNow);
}

function openChannel(id) {
  if (!here.channels.has(id)) return;
  here.channel = id;
  here.tab = "messages";
  here.thread = null;
  document.body.classList.remove("drawn");
  $("drawer").setAttribute("aria-expanded", "false");
  history.replaceState(null, "", `/#${id}`);
  mainComposer.load();
  draw();
}

function openThread(channel, ts) {
  here.thread = { channel, ts };
  drawNow();
  threadComposer.load();
  threadComposer.focus();
}

function jump(channel, ts, root) {
  openChannel(channel);
  if (root && root !== ts) openThread(channel, root);
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const found = document.querySelector(`article[data-ts="${CSS.escape(ts)}"]`);
    found?.scrollIntoView({ block: "center" });
    found?.classList.add("updated");
  }));
}

// The message box.

/** Verbs of a slash command, from its usage hint "why HOST | routes HOST | help". */
function verbs(command) {
  return (command.usage_hint ?? "").replace(/[[\]]/g, "").split("|").map((part) => part.trim()).filter(Boolean)
    .map((part) => { const [verb, ...rest] = part.split(/\s+/); return { insert: `${command.command} ${verb} `, label: `${command.command} ${verb}`, hint: rest.join(" ") }; });
}

function offers(text) {
  if (text.startsWith("/")) {
    const all = here.commands.flatMap((command) => { const found = verbs(command); return found.length ? found : [{ insert: `${command.command} `, label: command.command, hint: command.usage_hint ?? "" }]; });
    return all.filter((one) => one.insert.startsWith(text) && one.insert.trim() !== text.trim());
  }
  const word = text.match(/(?:^|\s)([@#][\w-]*)$/)?.[1];
  if (!word) return [];
  const names = word[0] === "@" ? [...[...here.users.values()].filter((user) => user.id !== here.me && user.id !== "USLACKBOT").map((user) => user.name), ...[...here.groups.values()].map((group) => group.handle)]
    : world.channels().map((channel) => channel.name);
  return names.filter((name) => name.startsWith(word.slice(1)) && name !== word.slice(1)).map((name) => ({ insert: `${text.slice(0, text.length - word.length)}${word[0]}${name} `, label: `${word[0]}${name}`, hint: "" }));
}

function composer(place, id, where) {
  const list = el("ul.offers", { role: "listbox", id: `${id}-offers`, hidden: true, aria: { label: "Completions" } });
  const box = el("textarea", { id, rows: 1, role: "combobox", autocomplete: "off", spellcheck: false, aria: { autocomplete: "list", controls: `${id}-offers`, expanded: "false", label: "Message" } });
  const send = el("button.send", { type: "submit", aria: { label: "Send" } }, "➤");
  const form = el("form.composer", {}, list, box, send);
  place.append(form, el("p.keys", {}, id === "composer" ? "Enter sends · Shift+Enter starts a line · Tab completes a command" : "@meshwhy answers here; slash commands do not exist in threads"));
  let found = [], at = -1;
  const resize = () => { box.style.height = "auto"; if (box.scrollHeight) box.style.height = `${Math.min(box.scrollHeight, 160)}px`; };
  const show = () => {
    found = box.selectionStart === box.value.length ? offers(box.value) : [];
    if (where().thread_ts && box.value.startsWith("/")) found = [];
    at = Math.min(at, found.length - 1);
    list.hidden = !found.length;
    box.setAttribute("aria-expanded", String(found.length > 0));
    list.replaceChildren(...found.map((one, number) => el("li", { role: "option", id: `${id}-offer-${number}`, aria: { selected: number === at }, on: { mousedown: (event) => { event.preventDefault(); take(number); } } }, el("strong", {}, one.label), " ", el("span", {}, one.hint))));
    if (at >= 0) box.setAttribute("aria-activedescendant", `${id}-offer-${at}`); else box.removeAttribute("aria-activedescendant");
    resize();
  };
  const take = (number) => { box.value = found[number].insert; at = -1; box.dispatchEvent(new Event("input")); };
  const draft = () => `${where().channel} ${where().thread_ts ?? ""}`;
  box.addEventListener("input", () => { here.drafts.set(draft(), box.value); show(); });
  box.addEventListener("blur", () => { list.hidden = true; });
  box.addEventListener("focus", show);
  box.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (found.length && step) { event.preventDefault(); at = (at + step + found.length + (at < 0 && step < 0 ? 1 : 0)) % found.length; show(); }
    else if (found.length && event.key === "Tab" && !event.shiftKey) { event.preventDefault(); take(Math.max(at, 0)); }
    else if (found.length && event.key === "Escape") { event.stopPropagation(); found = []; list.hidden = true; }
    else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); if (found.length && at >= 0) take(at); else form.requestSubmit(); }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (!text) return;
    const target = where();
    if (text.startsWith("/") && target.thread_ts) { note("Slash commands do not exist in threads. Write @meshwhy and the same words."); return; }
    act(text.startsWith("/") ? "command" : "say", { text, ...target });
    toEnd($(target.thread_ts ? "replies" : "messages")); // the answer comes there
    box.value = "";
    here.drafts.delete(draft());
    at = -1;
    show();
  });
  return {
    focus: () => box.focus(),
    load: () => {
      const channel = here.channels.get(where().channel);
      box.value = here.drafts.get(draft()) ?? "";
      box.placeholder = where().thread_ts ? "Reply…" : `Message ${channel?.person ? here.users.get(here.bot)?.name : "#" + channel?.name}`;
      resize();
    },
  };
}

const mainComposer = composer($("composer-place"), "composer", () => ({ channel: here.channel }));
const threadComposer = composer($("thread-composer-place"), "thread-composer", () => ({ channel: here.thread?.channel, thread_ts: here.thread?.ts }));

// Modals.

const typed = new Map(); // view id -> block id -> what is typed and not yet sent
function drawModal() {
  const stack = here.views.get(here.me)?.stack ?? [];
  const view = stack.at(-1);
  const box = $("modal");
  if (!view) { if (box.open) box.close(); box.dataset.print = ""; return; }
  const print = JSON.stringify([view.id, view.hash, view.errors]);
  if (box.dataset.print === print && box.open) return;
  box.dataset.print = print;
  const values = typed.get(view.id) ?? typed.set(view.id, new Map()).get(view.id);
  const own = {
    error: (id) => view.errors[id],
    value: (id, element) => {
      if (values.has(id)) return values.get(id);
      const state = view.state.values[id]?.[element.action_id];
      return state && Object.entries(state).find(([name]) => name !== "type")?.[1];
    },
  };
  const scope = within({ suggest: (element, text) => suggest({ view: view.id }, element, text) });
  const use = (one) => (element, choice) => {
    if (one.type === "input") { values.set(one.block_id, choice); if (!one.dispatch_action) return; }
    act("click", { view: view.id, action_id: element.action_id, choose: choice });
  };
  const close = () => act("close", { view: view.id });
  const submit = (event) => { event.preventDefault(); act("submit", { view: view.id, values: Object.fromEntries(values) }); };
  box.replaceChildren(el("form", { noValidate: true, on: { submit } },
    el("header", {}, el("h2", { id: "modal-title" }, view.title?.text ?? ""), el("button.icon", { type: "button", aria: { label: "Close" }, on: { click: close } }, "✕")),
    el("div.content", {}, view.errors[""] ? el("p.wrong", { role: "alert" }, view.errors[""]) : null, view.blocks.map((one) => block(one, scope, use(one), own))),
    el("footer", {}, el("button.button", { type: "button", on: { click: close } }, view.close?.text ?? "Cancel"), view.submit ? el("button.button.primary", { type: "submit" }, view.submit.text) : null)));
  box.oncancel = (event) => { event.preventDefault(); close(); };
  if (!box.open) box.showModal();
  (box.querySelector("[aria-invalid], .input input, .input textarea, .input select") ?? box.querySelector("button"))?.focus();
}

// What the server tells.

const told = {
  workspace(all) {
    const first = !here.me;
    here.bot = all.bot;
    here.users = new Map(all.users.map((user) => [user.id, user]));
    here.groups = new Map(all.groups.map((group) => [group.id, group]));
    here.channels = new Map(all.channels.map((channel) => [channel.id, channel]));
    here.messages = new Map(all.messages.map((message) => [key(message), message]));
    here.views = new Map(all.views.map((views) => [views.user, views]));
    Object.assign(here, { commands: all.commands, shortcuts: all.shortcuts, buttons: all.buttons, connected: all.connected, homeTab: all.home_tab });
    const people = world.users();
    if (first) {
      here.me = people.some((user) => user.id === sessionStorage.me) ? sessionStorage.me : people[0].id;
      for (const channel of here.channels.keys()) here.read.set(channel, inChannel(channel).map((one) => one.ts).sort().at(-1) ?? "0");
      $("me").replaceChildren(...people.map((user) => el("option", { value: user.id, selected: user.id === here.me }, user.name)));
      const place = location.pathname.match(/^\/archives\/([A-Z0-9]+)\/p(\d+)(\d{6})$/);
      if (place) jump(place[1], `${place[2]}.${place[3]}`, new URL(location.href).searchParams.get("thread_ts"));
      else openChannel(here.channels.has(location.hash.slice(1)) ? location.hash.slice(1) : [...here.channels.keys()][0]);
      document.body.classList.add("ready");
      if (matchMedia("(min-width: 721px)").matches) mainComposer.focus();
    }
    drawModal();
  },
  message({ message }) { here.messages.set(key(message), message); },
  channel({ channel }) { here.channels.set(channel.id, channel); },
  views(views) { here.views.set(views.user, views); drawModal(); },
  app({ connected }) { here.connected = connected; },
  done({ id, note: text, result }) { waiting.get(id)?.({ result }); waiting.delete(id); if (text) note(text); },
};

function connect() {
  socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/live`);
  socket.onopen = () => document.body.classList.remove("lost");
  socket.onmessage = ({ data }) => { const what = JSON.parse(data); told[what.kind]?.(what); draw(); };
  socket.onclose = () => {
    document.body.classList.add("lost");
    for (const [id, resolve] of waiting) { resolve(null); waiting.delete(id); }
    setTimeout(connect, 1000);
  };
}

$("me").addEventListener("change", () => {
  here.me = sessionStorage.me = $("me").value;
  const channel = here.channels.get(here.channel);
  if (channel.person) openChannel(directOf(here.me).id);
  here.thread = null;
  drawModal();
  draw();
});
$("thread-close").addEventListener("click", () => { here.thread = null; draw(); mainComposer.focus(); });
$("drawer").addEventListener("click", () => $("drawer").setAttribute("aria-expanded", String(document.body.classList.toggle("drawn"))));
$("main").addEventListener("click", (event) => { if (event.target.id !== "drawer") document.body.classList.remove("drawn"); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && here.thread && !$("modal").open && !$("confirm").open) { here.thread = null; draw(); mainComposer.focus(); } });
setInterval(draw, 60_000); // a new day begins
connect();
