//! The order of directories that `verify` changes: everything that a program can do with a directory still works.

mod common;

use common::{World, modes};

const PROGRAM: &str = include_str!("verify/dirs.c");

#[test]
fn every_way_to_read_a_directory_works() {
    for mode in modes().into_iter().filter(|mode| mode.runs) {
        let world = World::new(mode);
        world.write("src/dirs.c", PROGRAM);
        world.write(
            "recipe.toml",
            "name = \"test\"\n[base]\nhost = [\"/usr\", \"/bin\", \"/lib\", \"/lib64\"]\n\
             [sources.src]\npath = \"src\"\nunpack = \"/src\"\n\
             [[step]]\nname = \"read\"\nrun = 'gcc -O1 -pthread -o /tmp/dirs /src/dirs.c; mkdir /w; cd /w; /tmp/dirs'\n\
             [[step]]\nname = \"list\"\nrun = 'mkdir /l; cd /l; touch a b c d e f g h; ls -U'\n",
        );
        let mut orders = Vec::new();
        for order in ["null", "\"reversed\"", "{\"shuffled\":1}", "{\"shuffled\":2}"] {
            let conditions = format!("{{\"inside\":{{\"dir_order\":{order}}}}}");
            let build = world.build_recipe("recipe.toml", &["--no-cache", "--conditions", &conditions]).ok();
            orders.push(build.log("list"));
        }
        let mut reversed = orders[0].clone();
        reversed.reverse();
        assert_eq!(orders[1], reversed);
        let mut distinct = orders.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 4, "{orders:?}");
    }
}
