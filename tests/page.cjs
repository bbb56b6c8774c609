// Opens the status page in a real browser and does what a person does. Usage: node page.cjs URL TOKEN FOLDER
// Says `ready` when the page is open; the caller then makes an alert. Every step is a line; a failed one ends with exit 1.
"use strict";
const { chromium } = require("playwright-core");
const { readFileSync } = require("fs");
const [url, token, folder] = process.argv.slice(2);
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

async function overflow(page) {
  return page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
}

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
  const errors = [];
  const context = await browser.newContext({ viewport: { width: 1440, height: 1000 }, colorScheme: "light" });
  const page = await context.newPage();
  page.on("pageerror", (e) => errors.push(String(e)));
  page.on("console", (m) => m.type() === "error" && !/40[13]/.test(m.text()) && errors.push(m.text()));
  await page.goto(url);
  await page.waitForSelector("#live.on");
  check("the stream is open", true);
  const before = await page.locator(".alert").count();
  console.log("ready");

  await page.waitForFunction((n) => document.querySelectorAll(".alert").length > n, before, { timeout: 10000 });
  check("an alert arrives without a reload", true);
  check("it is announced", (await page.locator("#said").textContent()).includes("New critical alert"));
  const first = page.locator(".alert").first();
  await first.locator("summary").click();
  check("it opens to why and what to do", await first.getByText("What to do").isVisible() && await first.getByText("Why it fired").isVisible());
  await page.waitForTimeout(6500);
  check("it stays open while the page refreshes", await first.getByText("What to do").isVisible());
  await page.screenshot({ path: folder + "/status-light.png" });
  await axe(page, "light, an alert open");

  await page.fill("#search", "no such words at all");
  check("the filter hides what does not fit", await page.locator(".alert:visible").count() === 0 && await page.locator("#none").isVisible());
  await page.fill("#search", "mallory");
  check("the filter shows what fits", await page.locator(".alert:visible").count() > 0);
  await page.fill("#search", "");
  await page.check("#never");
  check("rules that never fired can be told apart", await page.locator("#rules tbody tr:visible").count() === 2);
  await page.uncheck("#never");
  await page.locator("#rules th button", { hasText: "Findings" }).click();
  check("rules can be sorted", (await page.locator("#rules tbody tr").first().textContent()).includes("Secret read"));

  await first.locator("input[name=reason]").fill("drill, ticket 42");
  await first.locator("form.quieten button").click();
  await page.fill("#token", "this-is-not-the-token");
  await page.locator("#ask button.primary").click();
  await first.locator(".failed").waitFor();
  check("a wrong token is refused and said", (await first.locator(".failed").textContent()).includes("not the token"));
  await first.locator("form.quieten button").click();
  await page.fill("#token", token);
  await axe(page, "light, dialog open");
  await page.locator("#ask button.primary").click();
  await page.locator("#silences .silence", { hasText: "drill, ticket 42" }).waitFor();
  check("a silence is set", true);
  await page.locator("#silences .silence button").click();
  await page.waitForFunction(() => !document.querySelector("#silences .silence"));
  check("and ended", true);

  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForTimeout(300);
  await axe(page, "dark by the system's wish");
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: folder + "/status-dark.png" });
  await page.click("#theme");
  check("the button overrides the system", await page.evaluate(() => document.documentElement.dataset.theme) === "light");
  await page.click("#theme");

  await page.setViewportSize({ width: 390, height: 844 });
  await page.waitForTimeout(300);
  check("nothing overflows on a phone", await overflow(page) <= 0);
  await axe(page, "dark, phone");
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: folder + "/status-phone.png" });
  await page.screenshot({ path: folder + "/status-phone-whole.png", fullPage: true });
  check("no script error: " + errors.join("; "), errors.length === 0);

  const bare = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1280, height: 900 } });
  const plain = await bare.newPage();
  await plain.goto(url);
  const text = await plain.locator("main").textContent();
  check("without a script the page says the essentials", ["mallory deleted 12 snapshots", "Ask the principal", "shardId-000000000003", "pager"].every((t) => text.includes(t)));
  check("and offers nothing that needs one", await plain.locator(".js:visible").count() === 0);
  await browser.close();
})().catch((error) => { console.log("FAILED " + error.message.slice(0, 2000)); process.exit(1); });
