// Opens the demo's status page in a real browser and does what a person does. Usage: node page.cjs FOLDER
// Says `launched` once the browser runs; then a line `URL TOKEN` on standard input starts it, as the attack begins. Every step is a
// line; a failed one ends with exit 1.
"use strict";
const { chromium } = require("playwright-core");
const { readFileSync } = require("fs");
const [folder] = process.argv.slice(2);
// What the attack ends with.
const LAST = "CloudTrail logging stopped";
const axeSource = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const check = (what, truth) => {
  if (!truth) throw new Error(what);
  console.log("ok " + what);
};

async function axe(page, where) {
  // The page's own policy forbids foreign scripts; the debugger's evaluation is not bound by it.
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  for (const v of violations) console.log(`axe ${where}: ${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.html + " " + n.failureSummary).join(" | ")}`);
  check(`axe reports nothing (${where})`, violations.length === 0);
}

const overflow = (page) => page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);

// Text that its box cuts off, outside of what scrolls.
const clipped = (page) => page.evaluate(() => [...document.querySelectorAll("main *")]
  .filter((e) => e.offsetParent && !e.closest(".scroll, .hide, svg, select, input") && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline")
  .map((e) => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`));

const picture = (page, name, options = {}) => page.screenshot({ path: `${folder}/${name}.png`, ...options });

async function attack(page) {
  await page.waitForSelector("#live.on", { timeout: 30000 });
  check("the stream is open", true);
  const before = await page.locator(".alert").count();
  await page.waitForFunction((n) => document.querySelectorAll(".alert").length > n, before, { timeout: 30000 });
  check("an alert of the attack arrives without a reload", true);
  check("it is announced", /New (critical|high|medium|low) alert: ./.test(await page.locator("#said").textContent()));
  await page.locator(".alert", { hasText: LAST }).waitFor({ timeout: 90000 });
  check("the whole attack is seen, up to the stopped trail", true);
}

async function read(page) {
  const first = page.locator(".alert", { hasText: LAST });
  await first.locator("summary").click();
  check("an alert opens to why and what to do", await first.getByText("What to do").isVisible() && await first.getByText("Why it fired").isVisible());
  await page.waitForTimeout(6500);
  check("it stays open while the page refreshes", await first.getByText("What to do").isVisible());
  const empty = await page.locator(".panel .empty:visible").allTextContents();
  check("only silences have nothing to show: " + empty.join("; "), empty.length === 1);
  check("rules have been timed", (await page.locator("#rules tbody td:last-child").evaluateAll((cells) => cells.filter((c) => Number(c.dataset.n) > 0).length)) > 3);
  const cut = await clipped(page);
  check("nothing is clipped: " + cut.join("; "), cut.length === 0);
  return first;
}

async function filter(page) {
  await page.fill("#search", "no such words at all");
  check("the filter hides what does not fit", await page.locator(".alert:visible").count() === 0 && await page.locator("#none").isVisible());
  await page.fill("#search", "deploy-bot");
  check("the filter shows what fits", await page.locator(".alert:visible").count() > 0);
  await page.fill("#search", "");
  await page.selectOption("#level", { label: "critical only" });
  const [critical, all] = [await page.locator(".alert:visible").count(), await page.locator(".alert").count()];
  check(`levels can be told apart (${critical} of ${all})`, critical > 0 && critical < all);
  await page.selectOption("#level", { label: "all levels" });
  const rules = await page.locator("#rules tbody tr:visible").count();
  await page.check("#never");
  const never = await page.locator("#rules tbody tr:visible").count();
  check(`rules that never fired can be told apart (${never} of ${rules})`, never > 0 && never < rules);
  await page.uncheck("#never");
  await page.locator("#rules th button", { hasText: "Findings" }).click();
  const found = await page.locator("#rules tbody tr").evaluateAll((rows) => rows.map((row) => Number(row.cells[4].dataset.n)));
  check("rules can be sorted", found[0] > 0 && found.every((n, i) => i === 0 || found[i - 1] >= n));
}

async function silence(page, alert, token) {
  await alert.locator("input[name=reason]").fill("drill, ticket 42");
  await alert.locator("form.quieten button").click();
  await page.fill("#token", "this-is-not-the-token");
  await page.locator("#ask button.primary").click();
  await alert.locator(".failed").waitFor();
  check("a wrong token is refused and said", (await alert.locator(".failed").textContent()).includes("not the token"));
  await alert.locator("form.quieten button").click();
  await page.fill("#token", token);
  await axe(page, "light, dialog open");
  await page.locator("#ask button.primary").click();
  await page.locator("#silences .silence", { hasText: "drill, ticket 42" }).waitFor();
  check("a silence is set", true);
  await page.locator("#silences .silence button").click();
  await page.waitForFunction(() => !document.querySelector("#silences .silence"));
  check("and ended", true);
}

async function dark(page) {
  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForTimeout(300);
  await axe(page, "dark by the system's wish");
  await page.evaluate(() => scrollTo(0, 0));
  await picture(page, "status-dark");
  await page.click("#theme");
  check("the button overrides the system", await page.evaluate(() => document.documentElement.dataset.theme) === "light");
  await page.click("#theme");
}

async function phone(page) {
  await page.setViewportSize({ width: 390, height: 844 });
  await page.waitForTimeout(300);
  check("nothing overflows on a phone", await overflow(page) <= 0);
  const cut = await clipped(page);
  check("nothing is clipped on a phone: " + cut.join("; "), cut.length === 0);
  await axe(page, "dark, phone");
  await page.evaluate(() => scrollTo(0, 0));
  await picture(page, "status-phone");
  await picture(page, "status-phone-whole", { fullPage: true });
}

async function withoutScript(browser, url) {
  const bare = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1280, height: 900 } });
  const plain = await bare.newPage();
  await plain.goto(url);
  const text = await plain.locator("main").textContent();
  const essentials = ["deploy-bot", "What to do", "Open incidents", "estate", "archive", "never"];
  check("without a script the page says the essentials", essentials.every((t) => text.includes(t)));
  await plain.locator(".alert summary").first().click();
  check("and an alert opens", await plain.locator(".alert").first().getByText("What to do").isVisible());
  check("and offers nothing that needs one", await plain.locator(".js:visible").count() === 0);
}

async function told() {
  let text = "";
  for await (const piece of process.stdin) text += piece;
  return text.trim().split(" ");
}

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
  const context = await browser.newContext({ viewport: { width: 1440, height: 1000 }, colorScheme: "light" });
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (e) => errors.push(String(e)));
  page.on("console", (m) => m.type() === "error" && !/40[13]/.test(m.text()) && errors.push(m.text()));
  console.log("launched");
  const [url, token] = await told();
  await page.goto(url);
  await attack(page);
  const alert = await read(page);
  await picture(page, "status-light");
  await axe(page, "light, an alert open");
  await filter(page);
  await silence(page, alert, token);
  await dark(page);
  await phone(page);
  check("no script error: " + errors.join("; "), errors.length === 0);
  await withoutScript(browser, url);
  await browser.close();
})().catch((error) => { console.log("FAILED " + error.message.slice(0, 2000)); process.exit(1); });
