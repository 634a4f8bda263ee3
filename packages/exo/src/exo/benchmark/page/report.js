"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let drawn = [];

  // Chart.js has no spreads: a line from the smallest to the largest value, with a bar at each end.
  const spread = {
    id: "spread",
    afterDatasetsDraw(chart) {
      const { ctx, scales } = chart;
      ctx.save();
      ctx.strokeStyle = color("--text");
      ctx.lineWidth = 1.25;
      chart.data.datasets.forEach((dataset, number) => {
        if (!chart.isDatasetVisible(number)) return;
        chart.getDatasetMeta(number).data.forEach((element, place) => {
          const point = dataset.spreads[place];
          if (!point || point.low === point.high) return;
          const [low, high] = [scales.y.getPixelForValue(point.low), scales.y.getPixelForValue(point.high)];
          ctx.beginPath();
          ctx.moveTo(element.x, low);
          ctx.lineTo(element.x, high);
          for (const y of [low, high]) {
            ctx.moveTo(element.x - 4, y);
            ctx.lineTo(element.x + 4, y);
          }
          ctx.stroke();
        });
      });
      ctx.restore();
    },
  };

  const dataset = (spec, series) => {
    const own = color(`--color-${series.color % 6}`);
    return {
      label: series.label,
      data: series.points.map((point) => point && (spec.labels ? point.y : { x: point.x, y: point.y })),
      spreads: series.points,
      borderColor: own,
      backgroundColor: spec.kind === "bar" ? `${own}cc` : own,
      borderDash: series.dashed ? [6, 5] : [],
      borderWidth: spec.kind === "bar" ? 1 : 2,
      borderRadius: 3,
      maxBarThickness: 48,
      pointRadius: 4,
      pointStyle: series.dashed ? "rectRot" : "circle",
    };
  };

  const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: value < 100 ? 3 : 6 });

  const scale = (text, extra) => ({
    title: { display: Boolean(text), text, color: color("--quiet") },
    ticks: { color: color("--quiet") },
    grid: { color: color("--line") },
    border: { color: color("--line") },
    ...extra,
  });

  const draw = (spec) => {
    const canvas = document.getElementById(`chart-${spec.id}`);
    canvas.closest("figure").hidden = false;
    const xs = [...new Set(spec.series.flatMap((series) => series.points.map((point) => point && point.x)))];
    const places = xs.filter((x) => x !== null).sort((one, other) => one - other);
    const across = spec.labels
      ? scale(spec.x, { grid: { display: false } })
      : scale(spec.x, {
          type: "linear",
          ticks: { color: color("--quiet"), maxRotation: 0 },
          min: 0,
          afterBuildTicks: (axis) => {
            if (places.length <= 8) axis.ticks = places.map((value) => ({ value }));
          },
        });
    const largest = Math.max(...spec.series.flatMap((series) => series.points.map((point) => (point ? point.high : 0))));
    return new Chart(canvas, {
      type: spec.kind,
      data: { labels: spec.labels || undefined, datasets: spec.series.map((series) => dataset(spec, series)) },
      plugins: [spread],
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        scales: { x: across, y: scale("", { beginAtZero: true, suggestedMax: largest }) },
        plugins: {
          legend: {
            display: spec.series.length > 1,
            position: "bottom",
            labels: { color: color("--text"), usePointStyle: true, boxHeight: 8 },
          },
          tooltip: {
            callbacks: {
              title: (items) => (spec.labels ? items[0].label : `${number(items[0].parsed.x)} ${spec.x}`),
              label: (item) => {
                const point = item.dataset.spreads[item.dataIndex];
                const range = point.low === point.high ? "" : ` (${number(point.low)} to ${number(point.high)})`;
                return `${item.dataset.label}: ${number(point.y)} ${spec.y}${range}`;
              },
            },
          },
        },
      },
    });
  };

  const redraw = () => {
    drawn.forEach((chart) => chart.destroy());
    drawn = specs.map(draw);
  };
  redraw();
  dark.addEventListener("change", redraw);
})();
