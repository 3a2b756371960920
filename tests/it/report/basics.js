// What any page owes to everybody who reads it: a list of what is wrong. Told to the browser by the tests; the page has no script.
(() => {
  const wrong = [];
  const say = (what, at) => wrong.push(at ? `${what}: ${(at.outerHTML || at).slice(0, 160)}` : what);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (at) => at.checkVisibility({ contentVisibilityAuto: true, opacityProperty: true, visibilityProperty: true });

  // Language, title, landmarks, headings in order.
  if (!document.documentElement.lang) say("no language");
  if (!document.title.trim()) say("no title");
  for (const mark of ["header", "main", "footer", "nav"]) {
    if (all(mark).length !== 1) say(`not one ${mark}`);
  }
  for (const nav of all("nav, section")) {
    const by = nav.getAttribute("aria-labelledby");
    if (!nav.ariaLabel && !(by && document.getElementById(by)?.textContent.trim())) say("no name", nav);
  }
  let last = 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6")) {
    const level = Number(heading.tagName[1]);
    if (level > last + 1) say(`h${level} after h${last}`, heading);
    if (!heading.textContent.trim()) say("empty heading", heading);
    last = level;
  }
  if (all("h1").length !== 1) say("not one h1");

  // Names: of links, of what opens, of tables and their heads. Ids are unique, and links within the page lead somewhere.
  const ids = all("[id]").map((at) => at.id);
  if (new Set(ids).size !== ids.length) say("an id stands twice");
  for (const link of all("a")) {
    if (!link.textContent.trim()) say("link without a name", link);
    const target = link.getAttribute("href");
    if (!target.startsWith("#") || !document.getElementById(target.slice(1))) say("link that leads nowhere", link);
  }
  for (const details of all("details")) {
    if (details.firstElementChild?.tagName !== "SUMMARY" || !details.firstElementChild.textContent.trim()) say("nothing to open it by", details);
  }
  for (const table of all("table")) {
    if (!table.caption?.textContent.trim()) say("table without a caption", table);
    for (const head of table.querySelectorAll("th")) {
      if (!["col", "row"].includes(head.scope)) say("head without a scope", head);
    }
  }
  for (const picture of all("svg")) {
    if (!picture.closest("[aria-hidden=true]")) say("picture that is neither named nor hidden", picture);
  }

  // Status never by colour alone.
  for (const badge of all(".badge")) {
    if (!/[a-z]/.test(badge.textContent)) say("status without a word", badge);
  }

  // Contrast of every text that is shown, as it is shown.
  const colour = (text) => {
    const parts = text.match(/[\d.]+%?/g).map(Number);
    const scale = text.startsWith("color(") ? 255 : 1;
    const [r, g, b, a = 1] = parts;
    return [r * scale, g * scale, b * scale, a];
  };
  const light = ([r, g, b]) => {
    const part = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (at) => {
    for (let up = at; up; up = up.parentElement) {
      const ground = colour(getComputedStyle(up).backgroundColor);
      if (ground[3] === 1) return ground;
    }
    return [255, 255, 255, 1];
  };
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const at = node.parentElement;
    if (!node.data.trim() || seen.has(at) || at.closest("style, script") || !shown(at)) continue;
    seen.add(at);
    texts += 1;
    const [one, other] = [light(colour(getComputedStyle(at).color)), light(behind(at))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) say(`contrast ${ratio.toFixed(2)}`, at);
    const size = parseFloat(getComputedStyle(at).fontSize);
    if (size < 11) say(`${size} px`, at);
  }
  if (texts < 20) say(`only ${texts} texts are shown`);
  return wrong;
})()
