export default {
  template: `
    <label class="theme"><span>Colours</span>
      <select aria-label="Colours" :value="theme" @change="choose($event.target.value)">
        <option value="auto">system</option><option value="light">light</option><option value="dark">dark</option>
      </select>
    </label>`,
  data() {
    return { theme: document.documentElement.dataset.theme || "auto" };
  },
  methods: {
    choose(theme) {
      this.theme = theme;
      if (theme === "auto") {
        delete document.documentElement.dataset.theme;
        localStorage.removeItem("hil-theme");
      } else {
        document.documentElement.dataset.theme = theme;
        localStorage.setItem("hil-theme", theme);
      }
    },
  },
};
