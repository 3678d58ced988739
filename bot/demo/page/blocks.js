// Block Kit and mrkdwn as elements of the page. Every text of a message becomes a text node: nothing here ever parses markup as HTML.

const EMOJI = {
  white_check_mark: "✅", heavy_check_mark: "✔️", x: "❌", warning: "⚠️", rotating_light: "🚨", fire: "🔥", eyes: "👀", mag: "🔍", bell: "🔔",
  no_bell: "🔕", no_entry: "⛔", question: "❓", grey_question: "❔", exclamation: "❗", red_circle: "🔴", large_green_circle: "🟢",
  large_yellow_circle: "🟡", large_orange_circle: "🟠", white_circle: "⚪", black_circle: "⚫", hourglass_flowing_sand: "⏳", hourglass: "⌛",
  wrench: "🔧", hammer_and_wrench: "🛠️", rocket: "🚀", tada: "🎉", wave: "👋", "+1": "👍", thumbsup: "👍", "-1": "👎", information_source: "ℹ️",
  bulb: "💡", memo: "📝", link: "🔗", lock: "🔒", key: "🔑", clock1: "🕐", calendar: "📅", robot_face: "🤖", spider_web: "🕸️", mute: "🔇",
  arrow_right: "➡️", arrow_up: "⬆️", arrow_down: "⬇️", point_right: "👉", zzz: "💤", chart_with_upwards_trend: "📈", bar_chart: "📊", books: "📚",
  heavy_minus_sign: "➖", speech_balloon: "💬", repeat: "🔁", construction: "🚧", raised_hand: "✋", pray: "🙏", bug: "🐛", label: "🏷️",
};

/** An element with properties (and `data`, `aria`, `on`) and children; strings become text. */
export function el(name, props = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key === "aria") for (const [name, told] of Object.entries(value)) node.setAttribute(`aria-${name}`, String(told));
    else if (key in node && key !== "role" && key !== "list") node[key] = value;
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const unescape = (text) => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
const emojify = (text) => text.replace(/:([a-z0-9_+-]+):/g, (whole, name) => EMOJI[name] ?? whole);
export const emoji = (name) => EMOJI[name] ?? `:${name}:`;

/** A link that leads where it says, and only to http, https and mail. */
function link(url, label, world) {
  const safe = /^(https?:|mailto:)/i.test(url);
  if (!safe) return el("span", {}, label);
  const here = new URL(url, location.href);
  const permalink = here.pathname.match(/^\/archives\/([A-Z0-9]+)\/p(\d+)(\d{6})$/);
  if (permalink) {
    const [, channel, seconds, micros] = permalink;
    const ts = `${seconds}.${micros}`;
    const jump = (event) => { event.preventDefault(); world.jump?.(channel, ts, here.searchParams.get("thread_ts")); };
    return el("a", { href: here.pathname + here.search, on: { click: jump } }, label);
  }
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, label);
}

const two = (number) => String(number).padStart(2, "0");

/** Slack's date formats in the reader's own timezone. */
export function formatDate(seconds, format) {
  const date = new Date(seconds * 1000);
  const today = new Date();
  const days = Math.round((new Date(today).setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 864e5);
  const pretty = { 0: "today", 1: "yesterday", "-1": "tomorrow" }[days];
  const as = (options) => date.toLocaleDateString("en-GB", options);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  const short = as({ month: "short", day: "numeric", year: "numeric" });
  const medium = as({ month: "long", day: "numeric", year: "numeric" });
  const long = as({ weekday: "long", month: "long", day: "numeric", year: "numeric" });
  const ago = () => {
    const minutes = Math.round((today - date) / 6e4);
    return minutes < 1 ? "just now" : minutes < 60 ? `${minutes} min ago` : minutes < 1440 ? `${Math.round(minutes / 60)} h ago` : `${Math.round(minutes / 1440)} d ago`;
  };
  const parts = {
    date_num: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`, date: medium, date_short: short, date_long: long,
    date_slash: as({}), date_pretty: pretty ?? medium, date_short_pretty: pretty ?? short, date_long_pretty: pretty ?? long,
    day_divider_pretty: pretty ?? long, time, time_secs: `${time}:${two(date.getSeconds())}`, ago: ago(),
  };
  return format.replace(/\{(\w+)\}/g, (whole, name) => parts[name] ?? whole);
}

/** One `<...>` token of mrkdwn. */
function token(inner, world) {
  const bar = inner.indexOf("|");
  const target = bar < 0 ? inner : inner.slice(0, bar);
  const label = bar < 0 ? "" : unescape(inner.slice(bar + 1));
  const mention = (text, ping) => el("span.mention" + (ping ? ".ping" : ""), {}, text);
  if (target.startsWith("@")) return mention(`@${world.userName(target.slice(1)) ?? label ?? target}`, target.slice(1) === world.me);
  if (target.startsWith("#")) {
    const id = target.slice(1);
    return el("a.mention", { href: `#${id}`, on: { click: (event) => { event.preventDefault(); world.open?.(id); } } }, `#${world.channelName(id) ?? label}`);
  }
  if (/^!(channel|here|everyone)$/.test(target)) return mention(`@${target.slice(1)}`, true);
  if (target.startsWith("!subteam^")) return mention(`@${world.groupName(target.slice(9)) ?? label.replace(/^@/, "")}`, true);
  if (target.startsWith("!date^")) {
    const [, seconds, format, url] = target.split("^");
    const shown = el("time", { dateTime: new Date(Number(seconds) * 1000).toISOString(), title: label }, formatDate(Number(seconds), format ?? "{date} {time}"));
    return url ? link(url, shown, world) : shown;
  }
  if (target.startsWith("!")) return el("span", {}, label || target);
  return link(unescape(target), label || unescape(target).replace(/^mailto:/, ""), world);
}

/** Text without formatting marks: tokens and emoji only. */
function plainRun(text, world, out) {
  let rest = 0;
  for (const found of text.matchAll(/<([^<>]+)>/g)) {
    if (found.index > rest) out.push(emojify(unescape(text.slice(rest, found.index))));
    out.push(token(found[1], world));
    rest = found.index + found[0].length;
  }
  if (rest < text.length) out.push(emojify(unescape(text.slice(rest))));
}

const MARKS = { "*": "strong", _: "em", "~": "s" };

/** Inline mrkdwn: code, bold, italic, strike, tokens. */
function inline(text, world) {
  const out = [];
  let at = 0, plain = "";
  const flush = () => { if (plain) plainRun(plain, world, out); plain = ""; };
  while (at < text.length) {
    const sign = text[at];
    if (sign === "<") {
      const end = text.indexOf(">", at);
      if (end > at) { plain += text.slice(at, end + 1); at = end + 1; continue; }
    }
    const before = at === 0 ? " " : text[at - 1];
    if (sign === "`") {
      const end = text.indexOf("`", at + 1);
      if (end > at + 1 && !text.slice(at + 1, end).includes("\n")) {
        flush();
        const code = el("code");
        const parts = [];
        plainRun(text.slice(at + 1, end), world, parts);
        code.append(...parts);
        out.push(code);
        at = end + 1;
        continue;
      }
    }
    if (MARKS[sign] && !/[\w*_~]/.test(before) && text[at + 1] && !/\s/.test(text[at + 1])) {
      let end = at + 1;
      do end = text.indexOf(sign, end + 1);
      while (end > 0 && (/\s/.test(text[end - 1]) || /\w/.test(text[end + 1] ?? " ")));
      if (end > at + 1 && !text.slice(at, end).includes("\n")) {
        flush();
        out.push(el(MARKS[sign], {}, inline(text.slice(at + 1, end), world)));
        at = end + 1;
        continue;
      }
    }
    plain += sign;
    at += 1;
  }
  flush();
  return out;
}

/** mrkdwn with its blocks of code, quotes and lines. */
export function mrkdwn(text, world) {
  const box = el("div.text");
  text.split("```").forEach((part, number, all) => {
    if (number % 2 && number < all.length - 1) {
      const parts = [];
      plainRun(part.replace(/^\n|\n$/g, ""), world, parts);
      box.append(el("pre", {}, parts));
      return;
    }
    const text = number % 2 ? "```" + part : part;
    let quote = null;
    const lines = (number > 0 ? text.replace(/^\n/, "") : text).split("\n");
    lines.forEach((line, index) => {
      const last = index === lines.length - 1;
      if (last && line === "" && lines.length > 1) return;
      if (line.startsWith("&gt;") || line.startsWith(">")) {
        quote ??= box.appendChild(el("blockquote"));
        quote.append(...inline(line.replace(/^(&gt;|>)\s?/, ""), world), el("br"));
        return;
      }
      quote = null;
      box.append(...inline(line, world));
      if (!last) box.append(el("br"));
    });
  });
  return box;
}

/** A text object. */
function words(text, world) {
  if (!text) return null;
  if (typeof text === "string") return text;
  return text.type === "mrkdwn" ? mrkdwn(text.text, world) : el("span.plain", {}, text.emoji === false ? text.text : emojify(text.text));
}

const plain = (text) => (text ? emojify(text.text) : "");

/** The markdown block: the common part of Markdown, as Slack translates it. */
function markdown(text, world) {
  const box = el("div.markdown");
  text.split(/\n{2,}/).forEach((part) => {
    const heading = part.match(/^#{1,6}\s+(.*)/);
    const asMrkdwn = part
      .replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;")
      .replace(/\*\*(.+?)\*\*/g, "*$1*").replace(/\[([^\]]+)\]\((https?:[^)\s]+)\)/g, "<$2|$1>").replace(/^[-*]\s+/gm, "• ");
    box.append(heading ? el("h4", {}, heading[1]) : el("p", {}, mrkdwn(asMrkdwn, world)));
  });
  return box;
}

function richLeaf(leaf, world) {
  const style = leaf.style ?? {};
  let node;
  switch (leaf.type) {
    case "text": node = el("span", {}, leaf.text); break;
    case "link": node = link(leaf.url, leaf.text || leaf.url, world); break;
    case "user": node = token(`@${leaf.user_id}`, world); break;
    case "usergroup": node = token(`!subteam^${leaf.usergroup_id}`, world); break;
    case "channel": node = token(`#${leaf.channel_id}`, world); break;
    case "broadcast": node = token(`!${leaf.range}`, world); break;
    case "emoji": node = el("span", {}, emoji(leaf.name)); break;
    case "date": node = el("time", {}, formatDate(leaf.timestamp, leaf.format)); break;
    case "color": node = el("code", {}, leaf.value); break;
    default: node = el("span");
  }
  for (const [name, tag] of [["code", "code"], ["bold", "strong"], ["italic", "em"], ["strike", "s"], ["underline", "u"]]) {
    if (style[name]) node = el(tag, {}, node);
  }
  return node;
}

function rich(element, world) {
  const leaves = (holder) => holder.elements.map((leaf) => richLeaf(leaf, world));
  switch (element.type) {
    case "rich_text_section": return el("div.rich", {}, leaves(element));
    case "rich_text_preformatted": return el("pre", {}, leaves(element));
    case "rich_text_quote": return el("blockquote", {}, leaves(element));
    case "rich_text_list": return el(element.style === "ordered" ? "ol" : "ul", { data: { indent: element.indent ?? 0 } },
      element.elements.map((item) => el("li", {}, leaves(item))));
    default: return null;
  }
}

function picture(block, world) {
  const file = block.slack_file;
  const id = file && (file.id ?? (file.url ?? "").match(/-(F[A-Z0-9]+)\//)?.[1]);
  if (file && world.privateFiles.has(id)) return el("p.private", {}, `A private file is not shown: ${block.alt_text}`);
  const source = file ? `/files-pri/T0LOCAL-${id}/picture` : `/picture?url=${encodeURIComponent(block.image_url)}`;
  return el("img", { src: source, alt: block.alt_text, loading: "lazy" });
}

function cell(value, world) {
  if (value.type === "rich_text") return value.elements.map((element) => rich(element, world));
  return value.text ?? String(value.value ?? "");
}

function table(block, world) {
  const columns = block.column_settings ?? [];
  const row = (cells, tag) => el("tr", {}, cells.map((value, number) => {
    const setting = columns[number] ?? {};
    const props = tag === "th" ? { scope: "col" } : {};
    return el(`${tag}.${setting.align ?? "left"}${setting.is_wrapped ? ".wrapped" : ""}`, props, cell(value, world));
  }));
  const [head, ...body] = block.rows;
  return el("div.table", { tabIndex: 0, role: "region", aria: { label: block.caption ?? "Table" } },
    el("table", {}, block.caption ? el("caption", {}, block.caption) : null, el("thead", {}, row(head, "th")), el("tbody", {}, body.map((cells) => row(cells, "td")))));
}

function chart(block) {
  const series = block.chart.segments ? [{ name: block.title, data: block.chart.segments }] : block.chart.series ?? [];
  return el("div.table", {}, el("table", {}, el("caption", {}, block.title), series.map((one) =>
    el("tbody", {}, one.data.map((point) => el("tr", {}, el("th", { scope: "row" }, point.label), el("td.right", {}, String(point.value))))))));
}

const SELECTS = {
  users: (world) => world.users().map((user) => [user.id, user.name]),
  channels: (world) => world.channels().map((channel) => [channel.id, `#${channel.name}`]),
  conversations: (world) => world.channels().map((channel) => [channel.id, `#${channel.name}`]),
};

/** What is offered by a select: [value, label] pairs, grouped. */
function offered(element, world) {
  const kind = element.type.match(/(users|channels|conversations)_select$/);
  if (kind) return [["", SELECTS[kind[1]](world)]];
  const pairs = (options) => options.map((option) => [option.value, plain(option.text)]);
  if (element.option_groups) return element.option_groups.map((group) => [plain(group.label), pairs(group.options)]);
  return [["", pairs(element.options ?? [])]];
}

/** An interactive element; `act(choice)` is called when a person uses it, `now` is its present value. */
export function control(element, world, act, now) {
  const name = element.accessibility_label ?? plain(element.text) ?? "";
  const confirmed = async (choice) => { if (!element.confirm || (await world.confirm(element.confirm))) act(choice); };
  const label = plain(element.placeholder) || element.action_id;
  switch (element.type) {
    case "button":
      return el(`button.button${element.style ? "." + element.style : ""}`, {
        type: "button", data: { action: element.action_id }, aria: element.accessibility_label ? { label: name } : {},
        on: { click: () => { confirmed(); if (element.url && /^https?:/i.test(element.url)) window.open(element.url, "_blank", "noopener"); } },
      }, plain(element.text));
    case "overflow": {
      const menu = el("div.menu", { role: "menu", hidden: true });
      const button = el("button.button.more", { type: "button", data: { action: element.action_id }, aria: { label: "More actions", haspopup: "menu", expanded: "false" } }, "⋯");
      world.menu(button, menu, element.options.map((option) => [plain(option.text), () => confirmed(option.value)]));
      return el("span.overflow", {}, button, menu);
    }
    case "checkboxes":
    case "radio_buttons": {
      const many = element.type === "checkboxes";
      const chosen = new Set((many ? now ?? element.initial_options : [now ?? element.initial_option]).filter(Boolean).map((option) => option.value ?? option));
      const group = el("div.choices", { role: many ? "group" : "radiogroup", data: { action: element.action_id } });
      const id = `c${Math.random().toString(36).slice(2)}`;
      for (const option of element.options) {
        const input = el("input", { type: many ? "checkbox" : "radio", name: id, value: option.value, checked: chosen.has(option.value) });
        input.addEventListener("change", () => {
          const values = [...group.querySelectorAll("input:checked")].map((one) => one.value);
          confirmed(many ? values : values[0]);
        });
        group.append(el("label", {}, input, words(option.text, world), option.description ? el("small", {}, plain(option.description)) : null));
      }
      return group;
    }
    case "datepicker":
    case "timepicker":
    case "datetimepicker": {
      const kind = { datepicker: "date", timepicker: "time", datetimepicker: "datetime-local" }[element.type];
      const value = now ?? element.initial_date ?? element.initial_time ?? "";
      return el("input.field", { type: kind, value: typeof value === "string" ? value : "", data: { action: element.action_id }, aria: { label },
        on: { change: (event) => confirmed(kind === "datetime-local" ? Math.floor(new Date(event.target.value) / 1000) : event.target.value) } });
    }
    case "plain_text_input":
    case "url_text_input":
    case "email_text_input":
    case "number_input":
    case "rich_text_input": {
      const long = element.multiline || element.type === "rich_text_input";
      const kind = { url_text_input: "url", email_text_input: "email", number_input: "number" }[element.type] ?? "text";
      const input = el(long ? "textarea.field" : "input.field", { ...(long ? { rows: 4 } : { type: kind }), value: (typeof now === "string" ? now : element.initial_value) ?? "",
        placeholder: plain(element.placeholder), data: { action: element.action_id }, maxLength: element.max_length ?? 3000 });
      input.addEventListener("input", () => act(input.value));
      return input;
    }
    case "file_input": {
      const input = el("input.field", { type: "file", multiple: (element.max_files ?? 10) > 1, data: { action: element.action_id } });
      input.addEventListener("change", async () => {
        const files = [...input.files].slice(0, element.max_files ?? 10);
        act(Object.fromEntries(await Promise.all(files.map(async (file) => [file.name, await file.text()]))));
      });
      return el("span.external", {}, input, el("small", {}, Object.keys(now ?? {}).filter((name) => now[name] && typeof now[name] === "string").join(", ")));
    }
    default: {
      if (!/select$/.test(element.type)) return el("span.private", {}, `(${element.type})`);
      const many = element.type.startsWith("multi_");
      const chosen = new Set([now, ...(element.initial_options ?? []), element.initial_option].flat().filter(Boolean).map((option) => option.value ?? option));
      const select = el("select.field", { multiple: many, data: { action: element.action_id }, aria: { label } });
      const fill = (groups) => {
        select.replaceChildren();
        if (!many) select.append(el("option", { value: "", disabled: true, selected: !chosen.size }, label));
        for (const [title, pairs] of groups) {
          const options = pairs.map(([value, text]) => el("option", { value, selected: chosen.has(value) }, text));
          select.append(...(title ? [el("optgroup", { label: title }, options)] : options));
        }
      };
      fill(offered(element, world));
      select.addEventListener("change", () => confirmed(many ? [...select.selectedOptions].map((one) => one.value) : select.value));
      if (!element.type.includes("external")) return select;
      const search = el("input.field", { type: "search", placeholder: label, aria: { label: `Search ${label}` } });
      search.addEventListener("input", async () => {
        if (search.value.length < (element.min_query_length ?? 3)) return;
        const found = await world.suggest(element, search.value);
        fill(found.some((one) => one.options) ? found.map((group) => [plain(group.label), group.options.map((option) => [option.value, plain(option.text)])])
          : [["", found.map((option) => [option.value, plain(option.text)])]]);
      });
      return el("span.external", {}, search, select);
    }
  }
}

/** One block. `act(element, choice)` is told when a person uses one of its elements; `view` gives an open view's values and errors. */
export function block(one, world, act, view) {
  const use = (element) => control(element, world, (choice) => act(element, choice), view?.value(one.block_id, element));
  switch (one.type) {
    case "header": return el(`h${Math.min(6, 2 + (one.level ?? 1))}.header`, {}, plain(one.text));
    case "section": {
      const accessory = one.accessory && (one.accessory.type === "image" ? el("div.thumb", {}, picture(one.accessory, world)) : use(one.accessory));
      return el("div.section", {}, el("div.said", {}, words(one.text, world),
        one.fields ? el("div.fields", {}, one.fields.map((field) => el("div", {}, words(field, world)))) : null), accessory);
    }
    case "divider": return el("hr");
    case "context": return el("div.context", {}, one.elements.map((element) => element.type === "image" ? picture(element, world) : words(element, world)));
    case "actions": return el("div.actions", {}, one.elements.map(use));
    case "context_actions": return el("div.actions", {}, one.elements.map((element) => element.type === "feedback_buttons"
      ? [element.positive_button, element.negative_button].map((button) => el("button.button", { type: "button", on: { click: () => act(element, button.value) } }, plain(button.text)))
      : el("button.button", { type: "button", on: { click: () => act(element) } }, plain(element.text))));
    case "image": return el("figure", {}, one.title ? el("figcaption", {}, plain(one.title)) : null, picture(one, world), el("small.alt", {}, one.alt_text));
    case "rich_text": return el("div.text", {}, one.elements.map((element) => rich(element, world)));
    case "markdown": return markdown(one.text, world);
    case "table":
    case "data_table": return table(one, world);
    case "data_visualization": return chart(one);
    case "video": return el("p", {}, link(one.title_url ?? one.video_url, plain(one.title), world));
    case "alert": return el(`div.alert.${one.level ?? "default"}`, { role: "note" }, words(one.text, world));
    case "container": return el("details.container", { open: !one.default_collapsed }, el("summary", {}, plain(one.title)), one.child_blocks.map((child) => block(child, world, act, view)));
    case "card": return el("div.card", {}, one.hero_image ? picture(one.hero_image, world) : null, words(one.title, world), words(one.subtitle, world), words(one.body, world),
      words(one.subtext, world), el("div.actions", {}, (one.actions ?? []).map(use)));
    case "carousel": return el("div.carousel", {}, one.elements.map((card) => block(card, world, act, view)));
    case "plan": return el("div.card", {}, el("strong", {}, one.title), el("ul", {}, (one.tasks ?? []).map((task) => el("li", {}, `${task.title}: ${task.status}`))));
    case "task_card": return el("div.card", {}, `${one.title}: ${one.status}`);
    case "input": {
      const id = `i${Math.random().toString(36).slice(2)}`;
      const field = use(one.element);
      const error = view?.error(one.block_id);
      const input = field.matches("input, textarea, select") ? field : field.querySelector("input, textarea, select");
      input.id = id;
      input.removeAttribute("aria-label"); // its label is what everybody sees
      input.setAttribute("aria-describedby", `${id}-hint`);
      if (error) input.setAttribute("aria-invalid", "true");
      return el("div.input", {}, el("label", { htmlFor: id }, plain(one.label), one.optional ? el("small", {}, " (optional)") : null), field,
        el("small", { id: `${id}-hint` }, one.hint ? plain(one.hint) : ""), error ? el("p.wrong", { role: "alert" }, error) : null);
    }
    default: return el("p.private", {}, `(${one.type})`);
  }
}
