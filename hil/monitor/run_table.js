// The table of all entries. Python filters, sorts and cuts pages; everything shown is text, which Vue escapes.
const START = { text: "", kind: "", state: "", tag: "", sort: "started", descending: true, page: 0 };
const KEPT = "hil-query";

export default {
  template: `<div>
    <section class="controls" aria-label="Filter">
      <label class="wide">Search<input type="search" v-model="query.text" @input="typed" placeholder="name, learner, device, note …"></label>
      <label v-for="[name, label] in [['kind', 'Kind'], ['state', 'State'], ['tag', 'Tag']]" :key="name">{{ label }}
        <select v-model="query[name]" @change="ask(0)">
          <option value="">all</option>
          <option v-for="choice in choices[name]" :key="choice" :value="choice">{{ choice }}</option>
        </select>
      </label>
      <label class="sorting">Sort by
        <select :value="query.sort + (query.descending ? ' -' : '')" @change="sortBy($event.target.value)">
          <template v-for="column in columns" :key="column.name">
            <option :value="column.name">{{ column.label }}, ascending</option>
            <option :value="column.name + ' -'">{{ column.label }}, descending</option>
          </template>
        </select>
      </label>
      <span class="spring"></span>
      <a v-if="picked.length > 1" class="button strong" :href="'/compare?runs=' + picked.join(',')">Compare {{ picked.length }} runs</a>
      <span v-else class="note small">{{ picked.length ? "Select one more run to compare." : "Select runs to compare them." }}</span>
    </section>
    <table class="runs">
      <caption class="unseen">Runs, comparisons, searches and calibrations</caption>
      <thead><tr>
        <th scope="col" class="pick"><span class="unseen">Selected</span></th>
        <th v-for="column in columns" :key="column.name" scope="col" :class="'of-' + column.name" :aria-sort="sorted(column.name)">
          <button type="button" @click="sort(column.name)">{{ column.label }}<span class="arrow" aria-hidden="true">{{ arrow(column.name) }}</span></button>
        </th>
        <th scope="col" class="act"><span class="unseen">Change</span></th>
      </tr></thead>
      <tbody>
        <template v-for="row in rows" :key="row.id">
          <tr :class="{ picked: picked.includes(row.id) }" :data-id="row.id">
            <td class="pick"><label v-if="row.kind === 'run'"><input type="checkbox" :value="row.id" v-model="picked" :aria-label="'Select ' + row.name"></label></td>
            <td class="of-state"><span :class="['chip', row.tone]">{{ row.state }}</span><small v-if="row.progress">{{ row.progress }}</small></td>
            <td class="of-outputs"><span :class="['lamp', row.outputs]">{{ row.outputs }}</span></td>
            <td class="of-name"><a :href="'/view/' + row.id">{{ row.name }}</a><small v-if="row.folder" class="run">{{ row.folder }}</small><small v-if="row.note" class="said">{{ row.note }}</small></td>
            <td class="of-kind">{{ row.kind }}</td>
            <td class="of-learner">{{ row.learner }}</td>
            <td class="of-device">{{ row.device }}<small v-if="row.provenance" :class="row.provenance">{{ row.provenance }}</small></td>
            <td class="of-value">{{ row.value }}<small v-if="row.split">{{ row.split }} {{ row.metric }}</small></td>
            <td class="of-seed">{{ row.seed }}</td>
            <td class="of-started">{{ row.started }}</td>
            <td class="of-wall">{{ row.wall }}</td>
            <td class="of-tags"><button v-for="tag in row.tags" :key="tag" type="button" class="tag" :title="'Show only ' + tag" @click="only(tag)">{{ tag }}</button></td>
            <td class="act"><button v-if="row.edit" type="button" class="button quiet" :aria-expanded="editing === row.id" :aria-label="'Edit tags and note of ' + row.name" @click="edit(row)">Edit</button></td>
          </tr>
          <tr v-if="editing === row.id" class="editing"><td :colspan="columns.length + 2">
            <div class="fields" @keydown.esc="leave(row)" @keydown.enter.prevent="save(row)">
              <label>Tags, separated by commas<input ref="first" v-model="draft.tags" autocomplete="off"></label>
              <label class="wide">Note<input v-model="draft.note" autocomplete="off" maxlength="2000"></label>
              <button type="button" class="button strong" @click.stop="save(row)" @keydown.enter.stop>Save</button>
              <button type="button" class="button" @click="leave(row)" @keydown.enter.stop>Cancel</button>
            </div>
          </td></tr>
        </template>
      </tbody>
    </table>
    <p v-if="!rows.length" class="note empty">{{ empty }}</p>
    <p class="state" v-if="said" role="alert">{{ said }}</p>
    <nav class="pager" aria-label="Pages of the table" v-if="total > size">
      <button type="button" class="button" :disabled="query.page === 0" @click="ask(query.page - 1)">Previous</button>
      <span role="status">{{ query.page * size + 1 }} to {{ Math.min(total, (query.page + 1) * size) }} of {{ total.toLocaleString("en") }}</span>
      <button type="button" class="button" :disabled="(query.page + 1) * size >= total" @click="ask(query.page + 1)">Next</button>
    </nav></div>`,
  props: { rows: Array, columns: Array, choices: Object, total: Number, size: Number, empty: String, said: String },
  emits: ["query", "notes"],
  data() {
    return { query: { ...START }, picked: [], editing: "", draft: { tags: "", note: "" }, timer: 0 };
  },
  mounted() {
    const kept = sessionStorage.getItem(KEPT); // whoever comes back from a run finds the table as it was
    if (kept) {
      Object.assign(this.query, JSON.parse(kept));
      this.ask(this.query.page);
    }
  },
  methods: {
    ask(page) {
      this.query.page = page;
      sessionStorage.setItem(KEPT, JSON.stringify(this.query));
      this.$emit("query", { ...this.query });
    },
    typed() {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(0), 150);
    },
    sort(name) {
      this.query.descending = this.query.sort === name ? !this.query.descending : false;
      this.query.sort = name;
      this.ask(0);
    },
    sortBy(value) {
      [this.query.sort, this.query.descending] = [value.replace(" -", ""), value.endsWith(" -")];
      this.ask(0);
    },
    sorted(name) {
      return this.query.sort !== name ? undefined : this.query.descending ? "descending" : "ascending";
    },
    arrow(name) {
      return this.query.sort !== name ? "" : this.query.descending ? " ↓" : " ↑";
    },
    only(tag) {
      this.query.tag = this.query.tag === tag ? "" : tag;
      this.ask(0);
    },
    edit(row) {
      if (this.editing === row.id) return this.leave(row);
      this.editing = row.id;
      this.draft = { tags: row.tags.join(", "), note: row.whole };
      this.$nextTick(() => [this.$refs.first].flat()[0]?.focus());
    },
    save(row) {
      this.$emit("notes", { id: row.id, tags: this.draft.tags, note: this.draft.note });
      this.leave(row);
    },
    leave(row) {
      this.editing = "";
      this.$nextTick(() => this.$el.querySelector(`tr[data-id="${row.id}"] .act button`)?.focus());
    },
  },
};
