fn main() {
    println!("isolith");
}
