// Draws the charts, again whenever the colour scheme or the room for them changes in kind.
const DARK = {
  ...LIGHT,
  axis: {
    ...LIGHT.axis,
    domainColor: "#4b525e",
    gridColor: "#2a2f38",
    tickColor: "#4b525e",
    labelColor: "#aab2bf",
    titleColor: "#aab2bf",
  },
  legend: { ...LIGHT.legend, labelColor: "#e4e7ec", titleColor: "#aab2bf" },
  text: { ...LIGHT.text, color: "#aab2bf" },
  rule: { color: "#7b8494" },
  point: { color: "#9aa3b2" },
  range: { category: ["#ff8a5c", "#45c4dd"], ordinal: ["#b794ff", "#58c48f", "#8a93a1"] },
};

const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 560px)");
const views = new Map();

function config() {
  const theme = dark.matches ? DARK : LIGHT;
  return { ...theme, background: "transparent", legend: { ...theme.legend, columns: narrow.matches ? 1 : 0 } };
}

async function draw(figure) {
  const spec = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
  const target = figure.querySelector(".drawing");
  const options = {
    actions: false,
    // The interpreter evaluates expressions without making code of them, which the page's policy forbids.
    ast: true,
    config: config(),
    renderer: "svg",
    tooltip: { theme: dark.matches ? "dark" : "light" },
  };
  views.get(target)?.finalize();
  try {
    views.set(target, await window.vegaEmbed(target, spec, options));
    figure.dataset.drawn = "yes";
  } catch (error) {
    target.textContent = `This chart could not be drawn: ${error.message}`;
    console.error(error);
  }
}

// One after another: two redraws at once would leave a chart of the older kind behind.
let queue = Promise.resolve();

function drawAll() {
  for (const figure of document.querySelectorAll("figure.chart")) {
    queue = queue.then(() => draw(figure));
  }
}

dark.addEventListener("change", drawAll);
narrow.addEventListener("change", drawAll);
drawAll();
