use super::*;
use crate::trust::{Policy, Provenance, SecretKey, Vote};

fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn definition(n: u8) -> Subject {
    Subject::Definition(DefinitionKey::from_bytes([n; 32]))
}

fn claim(n: u8) -> Claim {
    let digest = format!("sha256:{}", format!("{n:02x}").repeat(32)).parse().unwrap();
    Claim {
        layer: LayerId::from_bytes([n; 32]),
        blob: Some(Blob { digest, size: 7 }),
        action: Some(ActionKey::from_bytes([n; 32])),
        wall_ms: 12,
    }
}

fn sealed(subject: Vec<Resource>, by: &SecretKey) -> Vec<u8> {
    let statement = Statement::new(subject, Provenance::default());
    Envelope::sign(&serde_json::to_vec(&statement).unwrap(), by)
}

fn reads(bytes: &[u8], subject: Subject, by: &SecretKey) -> Result<BTreeMap<Subject, Claim>, Refused> {
    let key = by.public();
    read(bytes, &RecordKey { subject, writer: key.writer() }, &key)
}

#[test]
fn a_record_says_what_was_put_into_it() {
    let key = secret(1);
    let action = Subject::Action(ActionKey::from_bytes([1; 32]));
    let bytes = sealed(vec![claim(1).resource(&definition(1)), claim(1).resource(&action)], &key);
    for subject in [definition(1), action] {
        assert_eq!(reads(&bytes, subject, &key), Ok(BTreeMap::from([(subject, claim(1))])));
    }
    let empty = Claim { layer: Manifest::empty_id(), blob: None, action: None, wall_ms: 0 };
    let bytes = sealed(vec![empty.resource(&definition(2))], &key);
    assert_eq!(reads(&bytes, definition(2), &key).unwrap()[&definition(2)], empty);
    let plan = Subject::plan([DefinitionKey::from_bytes([1; 32])]);
    let all = vec![Claim::plan(&plan), claim(1).resource(&definition(1)), empty.resource(&definition(2))];
    let claims = reads(&sealed(all, &key), plan, &key).unwrap();
    assert_eq!(claims, [(definition(1), claim(1)), (definition(2), empty)].into());
}

#[test]
fn a_record_under_another_name_or_of_another_key_is_refused() {
    let key = secret(1);
    let bytes = sealed(vec![claim(1).resource(&definition(1))], &key);
    // Of another key that is trusted as well, about another definition, and about an action of the same number.
    let says = |subject, by: &SecretKey| reads(&bytes, subject, by).unwrap_err().to_string();
    assert!(says(definition(1), &secret(2)).contains("none of that key"));
    let error = says(definition(2), &key);
    assert!(
        error.contains(&definition(2).to_string()) && error.contains(&definition(1).to_string()),
        "{error}"
    );
    assert!(
        says(Subject::Action(ActionKey::from_bytes([1; 32])), &key)
            .contains("expected a record about act-01")
    );
    assert!(says(Subject::Plan([1; 32]), &key).contains("expected a record about all-01"));
}

#[test]
fn what_is_said_twice_or_in_part_is_not_said() {
    let key = secret(1);
    let good = claim(1).resource(&definition(1));
    let with = |change: &dyn Fn(&mut Resource)| {
        let mut resource = good.clone();
        change(&mut resource);
        reads(&sealed(vec![resource], &key), definition(1), &key)
    };
    assert!(with(&|_| ()).is_ok());
    for field in ["sha256", "isolithLayer"] {
        assert!(with(&|r| drop(r.digest.remove(field))).is_err(), "{field}");
        for wrong in ["", "ab", &"A".repeat(64), &"../".repeat(21), &"0".repeat(63), &"0".repeat(65)] {
            assert!(with(&|r| drop(r.digest.insert(field.into(), wrong.into()))).is_err(), "{field} {wrong}");
        }
    }
    for wrong in [Value::from(-1), Value::from(1.5), Value::from("7"), Value::from(u64::MAX), Value::Null] {
        assert!(with(&|r| drop(r.annotations.insert(SIZE.into(), wrong.clone()))).is_err(), "{wrong}");
    }
    assert!(with(&|r| drop(r.annotations.insert(ACTION.into(), "x".into()))).is_err());
    assert!(reads(&sealed(vec![good.clone(), good.clone()], &key), definition(1), &key).is_err());
    assert!(reads(&sealed(vec![], &key), definition(1), &key).is_err());
    let plan = Subject::Plan([3; 32]);
    let twice = vec![Claim::plan(&plan), good.clone(), claim(2).resource(&definition(1))];
    assert!(reads(&sealed(twice, &key), plan, &key).is_err());
    // Another kind of statement that the same key has signed.
    let text = serde_json::to_string(&Statement::new(vec![good], Provenance::default())).unwrap();
    for (from, to) in [
        (PREDICATE_TYPE, "https://slsa.dev/verification_summary/v1"),
        (STATEMENT_TYPE, "https://in-toto.io/Statement/v0.1"),
        ("\"subject\":", "\"more\":1,\"subject\":"),
        ("\"subject\":", "\"subject\":[],\"subject\":"),
    ] {
        let bytes = Envelope::sign(text.replace(from, to).as_bytes(), &key);
        assert!(reads(&bytes, definition(1), &key).is_err(), "{to}");
    }
}

fn vote(key: u8, layer: u8) -> Vote {
    Vote { key: secret(key).public(), claim: claim(layer) }
}

fn policy(keys: &[u8], threshold: usize) -> Policy {
    Policy::new(keys.iter().map(|n| secret(*n).public()), threshold).unwrap()
}

#[test]
fn each_key_counts_once_and_only_keys_of_the_policy_do() {
    let layer = |weighed: &crate::trust::Weighed| weighed.agreed.as_ref().map(|agreed| agreed.claim.layer);
    let two = policy(&[1, 2, 3], 2);
    assert_eq!(layer(&two.weigh(&[vote(1, 9)])), None);
    // One key many times, and many keys that nobody trusts.
    assert_eq!(layer(&two.weigh(&[vote(1, 9), vote(1, 9), vote(4, 9), vote(5, 9)])), None);
    let weighed = two.weigh(&[vote(3, 9), vote(2, 9)]);
    assert_eq!(weighed.agreed.unwrap().by, [secret(2).public(), secret(3).public()]);
    // They disagree: nothing reaches two, and both layers are told.
    let weighed = two.weigh(&[vote(1, 8), vote(2, 9)]);
    assert_eq!((layer(&weighed), weighed.layers.len()), (None, 2));
    let weighed = two.weigh(&[vote(1, 8), vote(2, 9), vote(3, 9)]);
    assert_eq!((layer(&weighed), weighed.layers.len()), (Some(claim(9).layer), 2));
    // With a threshold of one, the first key of the policy decides, whatever the order of the votes.
    for votes in [[vote(1, 8), vote(2, 9)], [vote(2, 9), vote(1, 8)]] {
        assert_eq!(layer(&policy(&[1, 2], 1).weigh(&votes)), Some(claim(8).layer));
        assert_eq!(layer(&policy(&[2, 1], 1).weigh(&votes)), Some(claim(9).layer));
    }
}

#[test]
fn a_threshold_cannot_be_reached_by_naming_a_key_twice() {
    let key = |n| secret(n).public();
    assert!(Policy::new([key(1), key(1)], 2).is_err());
    assert!(Policy::new([key(1)], 0).is_err());
    assert_eq!(Policy::new([key(1), key(1), key(2)], 2).unwrap().keys(), [key(1), key(2)]);
    assert_eq!(policy(&[], 1).records(definition(1)).count(), 0);
}
